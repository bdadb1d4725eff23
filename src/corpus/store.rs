//! store
#[derive(Debug)]
pub struct Store {}
