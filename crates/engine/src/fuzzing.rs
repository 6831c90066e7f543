//! The door for fuzzing: what every request passes before it may reach a model.
//!
//! Only with the feature `fuzzing`, which no build that serves has.
use xebec_core::{InferError, InferRequest, ModelInfo};

/// Checks `request` as a model does that has no optional inputs, and returns its rows.
///
/// # Errors
/// It does not fit the model.
pub fn check(info: &ModelInfo, request: &mut InferRequest) -> Result<u32, InferError> {
    crate::check::check(info, None, request)
}
