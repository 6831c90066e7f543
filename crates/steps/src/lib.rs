//! Built-in steps of graphs: pictures, text, tables, boxes and lists between models.
//!
//! Each step is a pure function, opened with its settings once and run on tensors. Invariants: what a step allocates is
//! bounded by its settings before it is allocated; what cannot be worked on is an error that says where it is wrong; nothing
//! panics over an input. Not here: which steps make a graph, and when they run (`xebec-engine`).
#![forbid(unsafe_code)]

mod boxes;
mod decode;
mod library;
mod lookup;
mod nearest;
mod nms;
mod pixels;
mod rank;
mod resize;
mod settings;
mod table;
mod text;
mod values;
mod yolo;

pub use library::Library;
