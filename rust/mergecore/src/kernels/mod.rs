//! What arithmetic may a formula call?
//!
//! Every kernel works on a block of a tensor (some thousand elements that fit a core's cache), in a fixed order of operations, so that the
//! same bytes come out on every processor and for any number of threads (for large matrices, in `spectral`: on one kind of processor). Each
//! has a twin in `tests/naive`, written as obviously as possible, that random inputs are held against.

pub mod active;
pub mod angle;
pub mod blend;
pub mod bracket;
pub mod crumbs;
pub mod cutoff;
pub mod divergence;
pub mod elect;
pub mod geometry;
pub mod gram;
pub mod low_rank;
pub mod magprune;
pub mod mask;
pub mod select;
pub mod spectral;
pub mod spread;
pub mod thin;
