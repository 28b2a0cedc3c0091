//! The encodings, one number at a time.

use std::sync::LazyLock;

use mergecore::dtype::Dtype;

/// The value of a pattern of bits.
pub fn decode(dtype: Dtype, bytes: &[u8]) -> f64 {
    match dtype {
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().unwrap()),
        Dtype::F32 => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
        small => values(small)[usize::from(u16::from_le_bytes([bytes[0], bytes[1]]))],
    }
}

/// All values of a 16-bit type, from sign, exponent and fraction.
fn values(dtype: Dtype) -> &'static [f64] {
    static BF16: LazyLock<Vec<f64>> = LazyLock::new(|| (0..=u16::MAX).map(|bits| value(8, 7, u32::from(bits))).collect());
    static F16: LazyLock<Vec<f64>> = LazyLock::new(|| (0..=u16::MAX).map(|bits| value(5, 10, u32::from(bits))).collect());
    match dtype {
        Dtype::BF16 => &BF16,
        Dtype::F16 => &F16,
        other => panic!("{other:?} is no number here"),
    }
}

fn value(exponent_bits: u32, fraction_bits: u32, bits: u32) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1u32 << fraction_bits);
    let bias = (1 << (exponent_bits - 1)) - 1;
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(1 - bias),
        e if e == (1 << exponent_bits) - 1 && fraction == 0.0 => f64::INFINITY,
        e if e == (1 << exponent_bits) - 1 => f64::NAN,
        e => (1.0 + fraction) * 2f64.powi(e as i32 - bias),
    };
    sign * magnitude
}

/// The nearest number that the type has; of two as near, the one with the even last bit.
pub fn encode(dtype: Dtype, x: f64) -> Vec<u8> {
    match dtype {
        Dtype::F64 => x.to_le_bytes().to_vec(),
        Dtype::F32 => (x as f32).to_le_bytes().to_vec(),
        Dtype::BF16 | Dtype::F16 => nearest(dtype, x).to_le_bytes().to_vec(),
        other => panic!("{other:?} is no number here"),
    }
}

/// Magnitudes' bits order like the magnitudes: the last pattern that is not above |x| is found by halving, then its neighbour is asked.
fn nearest(dtype: Dtype, x: f64) -> u16 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let infinity: u16 = if dtype == Dtype::BF16 { 0x7f80 } else { 0x7c00 };
    if x.is_nan() {
        return infinity | 1 << if dtype == Dtype::BF16 { 6 } else { 9 };
    }
    // The number after the largest, were there one: what is at least half-way to it rounds to infinity.
    let values = values(dtype);
    let value = |bits: u16| match bits {
        b if b == infinity => 2.0 * values[usize::from(infinity - if dtype == Dtype::BF16 { 1 << 7 } else { 1 << 10 })],
        b => values[usize::from(b)],
    };
    let (mut low, mut high) = (0, infinity);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if value(middle) <= x.abs() {
            low = middle;
        } else {
            high = middle;
        }
    }
    let (below, above) = (x.abs() - value(low), value(high) - x.abs());
    sign | if below < above || (below == above && low % 2 == 0) { low } else { high }
}

/// The distance between neighbours at x.
pub fn ulp(dtype: Dtype, x: f64) -> f64 {
    let (digits, least) = match dtype {
        Dtype::F64 => (52, -1074),
        Dtype::F32 => (23, -149),
        Dtype::BF16 => (7, -133),
        Dtype::F16 => (10, -24),
        other => panic!("{other:?} is no number here"),
    };
    let exponent = if x == 0.0 || !x.is_finite() { i32::MIN / 2 } else { x.abs().log2().floor() as i32 };
    // exp2, since powi takes the reciprocal of a power that overflows.
    f64::exp2(f64::from((exponent - digits).max(least)))
}
