//! The `sep4d` program.
fn main() {}
