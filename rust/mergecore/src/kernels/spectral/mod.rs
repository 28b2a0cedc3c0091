//! What are a large matrix's singular values and vectors, and what is made of them?
//!
//! Everything is done along the matrix's shorter axis: AAᵀ and its eigenvectors, in f64, give all singular values and one side's singular
//! vectors; the other side is never formed, since what methods want (σ̄·polar(A), boosted singular values) is W·A with a small W.
//! The cost is that of a few products, where an SVD costs some twenty.
//!
//! Unlike the other kernels these use libraries (`gemm`, faer) that fuse and reorder by the processor's vector width: the same bytes for any
//! number of threads, and not on every kind of processor.

pub mod matrix;
pub mod product;
pub mod reshape;
pub mod spectrum;
pub mod stack;
pub mod workers;
