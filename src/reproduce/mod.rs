//! The paper's tables and figures, measured: which runs they need, what came of each, and a report beside what was published.
//!
//! A [`Study`] is a table or a figure. All of them draw on one list of [`Run`]s, so that what two tables share is trained once.

mod estimate;
mod html;
mod outcome;
mod plan;
mod plot;
mod published;
mod report;
mod table;

pub use estimate::{needs, seconds_of_a_step};
pub use html::page;
pub use outcome::{Outcome, State};
pub use plan::{Run, Scale, Study, runs};
pub use plot::{Chart, Line, draw};
pub use report::{Measured, write};
pub use table::{Cell, Table};
