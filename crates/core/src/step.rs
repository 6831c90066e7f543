//! Built-in steps of graphs: work on pictures, text and lists between models, and the port through which it is done.
//!
//! A step is a pure function of its inputs and of what it was opened with. Not here: the steps (`xebec-steps`), when one
//! runs (`xebec-engine`).
use crate::{Tensor, model::TensorInfo};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// One step, opened.
pub trait Step: Send + Sync {
    /// What it takes, in its order. Shapes are whole: a step has no batch axis.
    fn inputs(&self) -> &[TensorInfo];

    /// What it makes, in its order.
    fn outputs(&self) -> &[TensorInfo];

    /// Runs it on inputs that fit [`Self::inputs`], in their order. What is made is in the order of [`Self::outputs`].
    ///
    /// # Errors
    /// The inputs' values are at fault.
    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit>;
}

/// An output of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Extent of every axis.
    pub shape: Vec<i64>,
    /// Elements, as of [`Tensor::data`].
    pub data: Bytes,
}

/// Why inputs cannot be worked on: what was wrong, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

/// The files of a step.
pub trait Files {
    /// The bytes of a file by its name below the step's folder, read as they are looked at where the system can.
    ///
    /// # Errors
    /// It is not there, lies elsewhere or cannot be read; with its name.
    fn map(&self, name: &str) -> Result<Bytes, String>;
}

/// What a step is opened with.
#[derive(Clone, Copy)]
pub struct Recipe<'a> {
    /// Which.
    pub kind: &'a str,
    /// How it is to work, by name.
    pub settings: &'a BTreeMap<String, String>,
    /// Its files, if it has any.
    pub files: &'a dyn Files,
}

/// Steps by name.
pub trait Steps: Send + Sync {
    /// Opens one.
    ///
    /// # Errors
    /// There is no such step, a setting is wrong or unknown, or a file cannot be read; with what would be right.
    fn open(&self, recipe: Recipe<'_>) -> Result<Arc<dyn Step>, String>;

    /// Every step's name, with what it does in a sentence.
    fn kinds(&self) -> Vec<(&'static str, &'static str)>;
}
