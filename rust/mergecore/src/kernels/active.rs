//! RAM's question: which models change an element, and which is alone in that?

use crate::dtype::Real;

/// Whether a change counts as one.
#[inline(always)]
fn is_active<R: Real>(delta: R, epsilon: R) -> bool {
    delta.abs() > epsilon
}

wide! {
    /// How many rows are active in each element.
    fn tally<R>(count: &mut [R], rows: &[Vec<R>], epsilon: R) {
        count.fill(R::ZERO);
        for row in rows {
            for (count, delta) in count.iter_mut().zip(row) {
                *count = *count + if is_active(*delta, epsilon) { R::ONE } else { R::ZERO };
            }
        }
    }
}

wide! {
    /// For each row, how many of its active elements others share, and how many are its own. `scratch` is overwritten.
    pub fn count<R>(scratch: &mut [R], rows: &[Vec<R>], epsilon: R, counts: &mut [f64]) {
        tally(scratch, rows, epsilon);
        for (row, counts) in rows.iter().zip(counts.chunks_exact_mut(2)) {
            let (mut shared, mut own) = (0u32, 0u32);
            for (delta, count) in row.iter().zip(scratch.iter()) {
                shared += u32::from(is_active(*delta, epsilon) && *count > R::ONE);
                own += u32::from(is_active(*delta, epsilon) && *count == R::ONE);
            }
            counts.copy_from_slice(&[f64::from(shared), f64::from(own)]);
        }
    }
}

wide! {
    /// out ← the mean of the active elements; that of one row alone times its factor. Zero where none is active.
    pub fn mean<R>(out: &mut [R], rows: &[Vec<R>], epsilon: R, alone: &[R]) {
        /// Elements whose sums stay in the nearest cache while all rows are added.
        const STRIP: usize = 1024;
        let (mut active, mut factor) = ([R::ZERO; STRIP], [R::ONE; STRIP]);
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            out.fill(R::ZERO);
            active.fill(R::ZERO);
            for (row, alone) in rows.iter().zip(alone) {
                let row = &row[number * STRIP..][..out.len()];
                for i in 0..out.len() {
                    let is = is_active(row[i], epsilon);
                    out[i] = out[i] + if is { row[i] } else { R::ZERO };
                    active[i] = active[i] + if is { R::ONE } else { R::ZERO };
                    factor[i] = if is { *alone } else { factor[i] };
                }
            }
            for i in 0..out.len() {
                let sum = if active[i] == R::ONE { out[i] * factor[i] } else { out[i] };
                out[i] = sum / if active[i] > R::ZERO { active[i] } else { R::ONE };
            }
        }
    }
}
