//! What does a thread work on? Rows for one block of every model, used again for each.

use crate::dtype::Real;
use crate::kernels::select::Seen;

/// A thread's rows, for either arithmetic.
#[derive(Default)]
pub struct Desks {
    narrow: Desk<f32>,
    wide: Desk<f64>,
}

#[derive(Default)]
pub struct Desk<R> {
    pub raw: Vec<u8>,
    pub base: Vec<R>,
    pub onto: Vec<R>,
    pub inputs: Vec<Vec<R>>,
    pub out: Vec<R>,
    /// The encoded tile.
    pub bytes: Vec<u8>,
    /// What this thread has counted in the present tile, one for each threshold sought.
    pub seen: Vec<Seen>,
}

/// Picks the desk of the right arithmetic.
pub trait Seat: Real {
    fn desk(desks: &mut Desks) -> &mut Desk<Self>;
}

impl Seat for f32 {
    fn desk(desks: &mut Desks) -> &mut Desk<f32> {
        &mut desks.narrow
    }
}

impl Seat for f64 {
    fn desk(desks: &mut Desks) -> &mut Desk<f64> {
        &mut desks.wide
    }
}

/// Bytes that one thread holds for `models` inputs, in f32 or f64 arithmetic, with blocks of `block` elements and tiles of `tile` of up to
/// `element` bytes each.
pub fn bytes(models: usize, wide: bool, block: u64, tile: u64, element: usize) -> u64 {
    let row = block * if wide { 8 } else { 4 };
    // raw, base, onto, out and the inputs; lists of 2^17 for each threshold.
    row * (models as u64 + 5) + models as u64 * (4 << 17) + tile * element as u64
}
