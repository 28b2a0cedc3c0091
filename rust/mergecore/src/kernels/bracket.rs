//! Between which magnitudes do the k largest begin, going by a sample?

/// One block in so many is sampled, and a large tensor's sample is thinned to about one element in `THIN`, within limits.
const SAMPLED: u64 = 16;
const THIN: u64 = 1 << 12;
const SAMPLE: [u64; 2] = [1 << 16, 1 << 20];

/// Of `total` elements every so many of a sampled block are noted, for which there is room for `room` numbers of 8 bytes.
pub fn stride(total: u64, room: u64) -> usize {
    // An element takes two numbers, and one more while the bracket is sought.
    let sample = (total / THIN).clamp(SAMPLE[0], SAMPLE[1]).min(room.div_ceil(4));
    (total / SAMPLED / sample).max(1) as usize
}

/// Whether a block is sampled. The choice is scattered, so that no period of the tensor's aligns with it.
pub fn sampled(block: usize) -> bool {
    block as u64 % SAMPLED == scatter(block as u64 / SAMPLED) >> 60
}

/// The elements noted of a sampled block: not the same columns of every row.
pub fn thinned<R>(block: usize, x: &[R], stride: usize) -> impl Iterator<Item = &R> {
    let skip = (scatter(block as u64) >> 32) as usize % stride;
    x.iter().skip(skip).step_by(stride)
}

fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Where a sample says that the threshold is. Besides the middle, `share` of all is there, and nearly all of that ends in so many zero bits.
pub struct Bracket {
    pub first: u64,
    pub middle: u64,
    pub last: u64,
    pub share: f64,
    pub zeros: u32,
}

/// The bracket around the largest `fraction` of all, going by a sample: blocks and values.
pub fn around(sample: &[(u32, u64)], fraction: f64) -> Option<Bracket> {
    if sample.is_empty() {
        return None;
    }
    let total = sample.len() as f64;
    let mut values: Vec<u64> = sample.iter().map(|(_, x)| *x).collect();
    let mut at = |rank: f64| {
        let place = (total - rank).clamp(0.0, total - 1.0) as usize;
        *values.select_nth_unstable(place).1
    };
    let middle = at(fraction * total);
    // Blocks differ more than independent elements would: by how much, neighbours tell. Of a few blocks that is not to be trusted, and a
    // quarter of a percent of all ranks is added.
    let (blocks, between) = spread(sample, middle);
    let margin = 4.0 * between.max((total * fraction * (1.0 - fraction)).sqrt()) + 0.0025 * total * (256.0 / blocks).min(1.0) + 8.0;
    let first = if fraction * total + margin < total { at(fraction * total + margin) } else { 0 };
    let last = if fraction * total > margin { at(fraction * total - margin) } else { u64::MAX };
    let mut zeros: Vec<u32> =
        sample.iter().filter(|(_, x)| (first..=last).contains(x) && *x != middle).map(|(_, x)| x.trailing_zeros()).collect();
    let (inside, few) = (zeros.len(), zeros.len() / 100);
    let zeros = if inside > 0 { *zeros.select_nth_unstable(few).1 } else { 0 };
    Some(Bracket { first, middle, last, share: inside as f64 / total, zeros })
}

/// How many blocks were sampled, and the standard error, as they differ, of the number of elements above `middle`.
fn spread(sample: &[(u32, u64)], middle: u64) -> (f64, f64) {
    let last = sample.iter().map(|(block, _)| *block).max().unwrap_or(0) as usize;
    let mut blocks = vec![[0u32; 2]; last / SAMPLED as usize + 1];
    for (block, x) in sample {
        let [above, all] = &mut blocks[*block as usize / SAMPLED as usize];
        *above += u32::from(*x > middle);
        *all += 1;
    }
    blocks.retain(|[_, all]| *all > 0);
    let share = sample.iter().filter(|(_, x)| *x > middle).count() as f64 / sample.len() as f64;
    let excess = |[above, all]: [u32; 2]| f64::from(above) - share * f64::from(all);
    let squares: f64 = blocks.windows(2).map(|pair| (excess(pair[0]) - excess(pair[1])).powi(2)).sum();
    (blocks.len() as f64, (squares / 2.0).sqrt())
}
