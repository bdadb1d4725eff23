//! errors
#[derive(Debug, thiserror::Error)]
#[error("corpus")]
pub struct Error;
