//! What the targets share with the tests.

#[path = "../../crates/media/tests/exercise/mod.rs"]
pub mod media_files;
