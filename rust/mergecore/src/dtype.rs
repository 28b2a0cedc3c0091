//! How is a weight encoded? (f64 f32 bf16 f16 ⇄ rows of f32 or f64; integers are copied)
//!
//! Decoding is exact; encoding rounds once, to nearest, ties to even. NaN stays NaN.

use half::{bf16, f16};

/// The element types of the safetensors format. Only the first four take part in arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

/// Name in a file's header, name in recipes and configs, bytes an element.
const TABLE: [(Dtype, &str, &str, usize); 13] = [
    (Dtype::F64, "F64", "float64", 8),
    (Dtype::F32, "F32", "float32", 4),
    (Dtype::F16, "F16", "float16", 2),
    (Dtype::BF16, "BF16", "bfloat16", 2),
    (Dtype::Bool, "BOOL", "bool", 1),
    (Dtype::U8, "U8", "uint8", 1),
    (Dtype::I8, "I8", "int8", 1),
    (Dtype::U16, "U16", "uint16", 2),
    (Dtype::I16, "I16", "int16", 2),
    (Dtype::U32, "U32", "uint32", 4),
    (Dtype::I32, "I32", "int32", 4),
    (Dtype::U64, "U64", "uint64", 8),
    (Dtype::I64, "I64", "int64", 8),
];

impl Dtype {
    /// The four types that a merge may be stored in.
    pub const FLOATS: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::BF16, Dtype::F16];

    fn row(self) -> &'static (Dtype, &'static str, &'static str, usize) {
        &TABLE[self as usize]
    }

    /// `BF16`, as a safetensors header spells it.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// `bfloat16`, as recipes and configs spell it.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Bytes an element.
    pub fn size(self) -> usize {
        self.row().3
    }

    pub fn is_float(self) -> bool {
        self.size() >= 2 && (self as usize) < 4
    }

    /// The standard deviation of what rounding to this type has moved a weight by, as a share of it (measured; in bf16 it is 2^-8 / √12, and
    /// the mean distance of a number from its power of two).
    pub fn rounding(self) -> f64 {
        match self {
            Dtype::BF16 => (-9.2f64).exp2(),
            Dtype::F16 => (-12.2f64).exp2(),
            Dtype::F32 => (-25.2f64).exp2(),
            _ => (-54.2f64).exp2(),
        }
    }

    pub fn from_code(code: &str) -> Option<Dtype> {
        TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// Accepts `bfloat16` and torch's `torch.bfloat16`.
    pub fn from_name(name: &str) -> Option<Dtype> {
        let name = name.strip_prefix("torch.").unwrap_or(name);
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }
}

/// The type that arithmetic runs in: f32, and f64 where any input or the output is f64.
pub trait Real:
    Copy
    + Send
    + Sync
    + Default
    + PartialOrd
    + std::fmt::Debug
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + 'static
{
    const DTYPE: Dtype;
    const ZERO: Self;
    const ONE: Self;
    /// Bits of a magnitude (the sign is not one of them): 31 or 63.
    const MAGNITUDE_BITS: u32;
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
    fn abs(self) -> Self;
    /// self·factor + term, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    fn is_finite(self) -> bool;
    fn is_nan(self) -> bool;
    /// An unsigned integer of the same size.
    type Bits: Copy + Ord + Into<u64>;
    /// The magnitude as an integer that orders like it; NaN is above infinity.
    fn magnitude(self) -> Self::Bits;
    /// The lower bits of `bits`.
    fn bits(bits: u64) -> Self::Bits;
    /// The number, not below 0, that has this magnitude.
    fn from_magnitude(magnitude: Self::Bits) -> Self;
    fn decode(dtype: Dtype, bytes: &[u8], out: &mut [Self]);
    fn encode(dtype: Dtype, values: &[Self], out: &mut [u8]);
    /// Decodes, and subtracts a base.
    fn decode_from(dtype: Dtype, bytes: &[u8], base: &[Self], out: &mut [Self]) {
        Self::decode(dtype, bytes, out);
        subtract(out, base);
    }
}

macro_rules! real {
    ($type:ty, $bits:ty, $magnitude_bits:expr) => {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const MAGNITUDE_BITS: u32 = $magnitude_bits;
        #[inline(always)]
        fn of(x: f64) -> Self {
            x as $type
        }
        #[inline(always)]
        fn f64(self) -> f64 {
            self as f64
        }
        #[inline(always)]
        fn abs(self) -> Self {
            <$type>::abs(self)
        }
        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            <$type>::mul_add(self, factor, term)
        }
        #[inline(always)]
        fn is_finite(self) -> bool {
            <$type>::is_finite(self)
        }
        #[inline(always)]
        fn is_nan(self) -> bool {
            <$type>::is_nan(self)
        }
        type Bits = $bits;
        #[inline(always)]
        fn magnitude(self) -> $bits {
            self.to_bits() & (<$bits>::MAX >> 1)
        }
        #[inline(always)]
        fn bits(bits: u64) -> $bits {
            bits as $bits
        }
        #[inline(always)]
        fn from_magnitude(magnitude: $bits) -> Self {
            <$type>::from_bits(magnitude)
        }
    };
}

impl Real for f32 {
    const DTYPE: Dtype = Dtype::F32;
    real!(f32, u32, 31);

    fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
        match dtype {
            Dtype::F32 => decode_f32(bytes, out),
            Dtype::BF16 => decode_bf16(bytes, out),
            Dtype::F16 => decode_f16(bytes, out),
            Dtype::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
            _ => unreachable!("{} takes no part in arithmetic: the plan copies it", dtype.name()),
        }
    }

    fn decode_from(dtype: Dtype, bytes: &[u8], base: &[f32], out: &mut [f32]) {
        match dtype {
            // In one loop: half of the time is for stores.
            Dtype::BF16 => decode_bf16_from(bytes, base, out),
            _ => {
                f32::decode(dtype, bytes, out);
                subtract(out, base);
            }
        }
    }

    fn encode(dtype: Dtype, values: &[f32], out: &mut [u8]) {
        match dtype {
            Dtype::F32 => encode_f32(values, out),
            Dtype::BF16 => encode_bf16(values, out),
            Dtype::F16 => encode_f16(values, out),
            Dtype::F64 => put(values, out, |x| (x as f64).to_le_bytes()),
            _ => unreachable!("{} takes no part in arithmetic: the plan copies it", dtype.name()),
        }
    }
}

impl Real for f64 {
    const DTYPE: Dtype = Dtype::F64;
    real!(f64, u64, 63);

    fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f64]) {
        match dtype {
            Dtype::F64 => each(bytes, out, f64::from_le_bytes),
            Dtype::F32 => each(bytes, out, |b| f32::from_le_bytes(b) as f64),
            Dtype::BF16 => each(bytes, out, |b| bf16::from_le_bytes(b).to_f64()),
            Dtype::F16 => each(bytes, out, |b| f16::from_le_bytes(b).to_f64()),
            _ => unreachable!("{} takes no part in arithmetic: the plan copies it", dtype.name()),
        }
    }

    fn encode(dtype: Dtype, values: &[f64], out: &mut [u8]) {
        match dtype {
            Dtype::F64 => put(values, out, |x| x.to_le_bytes()),
            Dtype::F32 => put(values, out, |x| (x as f32).to_le_bytes()),
            Dtype::BF16 => put(values, out, |x| bf16::from_f32(to_odd(x)).to_le_bytes()),
            Dtype::F16 => put(values, out, |x| f16::from_f32(to_odd(x)).to_le_bytes()),
            _ => unreachable!("{} takes no part in arithmetic: the plan copies it", dtype.name()),
        }
    }
}

/// Rounds to f32 "to odd": towards zero, with the last bit set where that lost something. Rounding the result to 16 bits is then the same
/// as rounding `x` once. (`as f32` would round twice; half's own `from_f64` drops the lower 32 bits before it rounds.)
fn to_odd(x: f64) -> f32 {
    let nearest = x as f32;
    if nearest as f64 == x || x.is_nan() {
        return nearest;
    }
    let towards_zero = if (nearest as f64).abs() > x.abs() { nearest.to_bits() - 1 } else { nearest.to_bits() };
    f32::from_bits(towards_zero | 1)
}

#[inline(always)]
fn each<const N: usize, R>(bytes: &[u8], out: &mut [R], decode: impl Fn([u8; N]) -> R) {
    assert_eq!(bytes.len(), out.len() * N);
    for (b, x) in bytes.chunks_exact(N).zip(out) {
        *x = decode(b.try_into().expect("chunks_exact gives N bytes"));
    }
}

#[inline(always)]
fn put<const N: usize, R: Copy>(values: &[R], out: &mut [u8], encode: impl Fn(R) -> [u8; N]) {
    assert_eq!(out.len(), values.len() * N);
    for (b, x) in out.chunks_exact_mut(N).zip(values) {
        b.copy_from_slice(&encode(*x));
    }
}

wide! {
    fn decode_f32(bytes: &[u8], out: &mut [f32]) {
        each(bytes, out, f32::from_le_bytes);
    }
}

wide! {
    fn decode_bf16(bytes: &[u8], out: &mut [f32]) {
        each(bytes, out, f32_of_bf16);
    }
}

wide! {
    fn decode_bf16_from(bytes: &[u8], base: &[f32], out: &mut [f32]) {
        assert_eq!((bytes.len(), base.len()), (out.len() * 2, out.len()));
        for ((b, base), x) in bytes.chunks_exact(2).zip(base).zip(out) {
            *x = f32_of_bf16(b.try_into().expect("chunks_exact gives 2 bytes")) - *base;
        }
    }
}

#[inline(always)]
fn f32_of_bf16(bytes: [u8; 2]) -> f32 {
    f32::from_bits((u16::from_le_bytes(bytes) as u32) << 16)
}

wide! {
    fn subtract<R>(x: &mut [R], base: &[R]) {
        for (x, b) in x.iter_mut().zip(base) {
            *x = *x - *b;
        }
    }
}

wide! {
    fn encode_f32(values: &[f32], out: &mut [u8]) {
        put(values, out, f32::to_le_bytes);
    }
}

wide! {
    fn encode_bf16(values: &[f32], out: &mut [u8]) {
        put(values, out, |x| {
            let bits = x.to_bits();
            let even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            // A NaN whose payload lies in the lower half would round to infinity: keep it a (quiet) NaN.
            let nan = (bits >> 16) | 0x40;
            (if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { even } as u16).to_le_bytes()
        });
    }
}

// f16 goes through `half`, whose slice conversions use F16C; a loop over scalars would ask for the processor's features once an element.

fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    let mut row = [f16::ZERO; 256];
    for (bytes, out) in bytes.chunks(512).zip(out.chunks_mut(256)) {
        let row = &mut row[..out.len()];
        each(bytes, row, f16::from_le_bytes);
        row.convert_to_f32_slice(out);
    }
}

fn encode_f16(values: &[f32], out: &mut [u8]) {
    use half::slice::HalfFloatSliceExt;
    let mut row = [f16::ZERO; 256];
    for (values, out) in values.chunks(256).zip(out.chunks_mut(512)) {
        let row = &mut row[..values.len()];
        row.convert_from_f32_slice(values);
        put(row, out, |x| x.to_le_bytes());
    }
}

wide! {
    /// How many of these values are NaN, and how many infinite. (counts fit: a block has thousands)
    pub fn count_unfinite<R>(values: &[R]) -> (u64, u64) {
        // One pass that only asks "is any not finite?" vectorises; the exact count is owed only where one is.
        let mut finite = true;
        for x in values {
            finite &= x.is_finite();
        }
        if finite {
            return (0, 0);
        }
        let nan = values.iter().filter(|x| x.is_nan()).count() as u64;
        let unfinite = values.iter().filter(|x| !x.is_finite()).count() as u64;
        (nan, unfinite - nan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i);
        }
        assert!(Dtype::FLOATS.iter().all(|d| d.is_float()));
        assert!(!Dtype::U16.is_float() && !Dtype::Bool.is_float());
    }

    #[test]
    fn every_16_bit_pattern_survives_the_round_trip() {
        for dtype in [Dtype::BF16, Dtype::F16] {
            for bits in 0..=u16::MAX {
                let (mut x, mut back) = ([0f32], [0u8; 2]);
                f32::decode(dtype, &bits.to_le_bytes(), &mut x);
                f32::encode(dtype, &x, &mut back);
                let quiet = if dtype == Dtype::BF16 { 0x40 } else { 0x200 };
                let expected = if x[0].is_nan() { bits | quiet } else { bits };
                assert_eq!(u16::from_le_bytes(back), expected, "{dtype:?} {bits:#x}");
                let mut wide = [0f64];
                f64::decode(dtype, &bits.to_le_bytes(), &mut wide);
                assert!(wide[0] == x[0] as f64 || x[0].is_nan() && wide[0].is_nan());
            }
        }
    }

    #[test]
    fn bf16_rounds_to_nearest_even_like_half() {
        let mut state = 1u64;
        for _ in 0..100_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let x = f32::from_bits((state >> 32) as u32);
            let mut bytes = [0u8; 2];
            f32::encode(Dtype::BF16, &[x], &mut bytes);
            assert_eq!(u16::from_le_bytes(bytes), bf16::from_f32(x).to_bits(), "{x:e}");
        }
    }

    #[test]
    fn f64_to_16_bits_rounds_once() {
        // Just above the middle between two neighbours, by less than f32 can hold.
        for (dtype, step) in [(Dtype::BF16, 2f64.powi(-7)), (Dtype::F16, 2f64.powi(-10))] {
            for (above, expected) in [(2f64.powi(-40), 1.0 + step), (0.0, 1.0), (-2f64.powi(-40), 1.0)] {
                for sign in [1.0, -1.0] {
                    let (mut bytes, mut back) = ([0u8; 2], [0f64]);
                    f64::encode(dtype, &[sign * (1.0 + step / 2.0 + above)], &mut bytes);
                    f64::decode(dtype, &bytes, &mut back);
                    assert_eq!(back[0], sign * expected, "{dtype:?} {above:e}");
                }
            }
            let (mut bytes, mut back) = ([0u8; 4], [0f64; 2]);
            f64::encode(dtype, &[1e300, f64::NAN], &mut bytes);
            f64::decode(dtype, &bytes, &mut back);
            assert!(back[0] == f64::INFINITY && back[1].is_nan());
        }
    }
}
