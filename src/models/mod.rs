//! The models: functions that append a network to a graph.

pub mod sep4d;
