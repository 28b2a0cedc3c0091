//! The engine of mergecore: bytes and floats, never Python.
//!
//! ```text
//! recipe → checkpoint (headers only) → plan → layout → run: bytes → dtype → method → kernels → dtype → bytes → write → report
//! ```
//!
//! Each room below may use only those before it; `tests/layers.rs` reads the `use` lines and says so.

#[macro_use]
mod wide;

pub mod dtype;
pub mod error;
pub mod kernels;
pub mod matrices;
pub mod names;
pub mod params;

pub mod methods;
pub mod modifiers;
pub mod recipe;

pub mod checkpoint;
pub mod layout;
pub mod plan;

pub mod report;
pub mod run;
pub mod verify;
pub mod write;

pub mod text;
