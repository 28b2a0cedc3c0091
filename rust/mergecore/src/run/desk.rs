//! What does a thread work on? Rows for one block of every model, used again for each.

use super::shelf::Shelf;
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
    /// What was read of the present block for one merge and may serve another.
    pub shelf: Shelf<R>,
    /// One for each merge that is made of the present tile.
    pub trays: Vec<Tray>,
}

/// What a thread keeps of a tile for one merge while it works on others.
#[derive(Default)]
pub struct Tray {
    /// The encoded tile.
    pub bytes: Vec<u8>,
    /// What this thread has counted in it, one for each threshold sought.
    pub seen: Vec<Seen>,
}

impl<R> Desk<R> {
    /// Takes the trays of so many merges; they are to be put back.
    pub fn take_trays(&mut self, count: usize) -> Vec<Tray> {
        self.trays.resize_with(self.trays.len().max(count), Tray::default);
        std::mem::take(&mut self.trays)
    }
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

/// Bytes that one thread holds for `rows` rows, in f32 or f64 arithmetic or both, with blocks of `block` elements.
pub fn bytes(rows: u64, narrow: bool, wide: bool, block: u64) -> u64 {
    rows * block * (if narrow { 4 } else { 0 } + if wide { 8 } else { 0 })
}

/// Bytes that one thread holds of a tile for one merge of `models` inputs: `tile` elements of up to `element` bytes each, and lists of 2^17 for
/// each threshold.
pub fn tray_bytes(models: usize, tile: u64, element: usize) -> u64 {
    models as u64 * (4 << 17) + tile * element as u64
}
