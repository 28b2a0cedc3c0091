//! Rows of numbers that find mistakes: ties, zeros of both signs, NaN, infinities, denormals, any pattern of bits.
//!
//! A row is made from a seed, so that a failing case is two numbers and a word.

#![allow(dead_code)] // each test file uses its part

use std::cmp::Ordering;

use mergecore::dtype::Real;
use proptest::prelude::*;

/// A small generator (SplitMix64), the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Between −1 and 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// What weights look like.
    Plain,
    /// Nine values in all, zeros of both signs among them.
    Tied,
    /// Plain, and a few of everything that is not.
    Wild,
    /// Any pattern of bits.
    Bits,
}

pub const FLAVOURS: [Flavour; 4] = [Flavour::Plain, Flavour::Tied, Flavour::Wild, Flavour::Bits];

/// A number that can be made of any bits and compared to the last of them.
pub trait Sample: Real {
    /// The relative distance between neighbours.
    const EPSILON: f64;
    fn from_any(bits: u64) -> Self;
    fn largest() -> Self;
    fn smallest() -> Self;
    /// By magnitude, NaN above infinity.
    fn by_magnitude(self, other: Self) -> Ordering;

    /// Equal to the last bit (so −0 is not 0), NaN to any NaN.
    fn same(self, other: Self) -> bool {
        (self.is_nan() && other.is_nan()) || self.f64().to_bits() == other.f64().to_bits()
    }
}

macro_rules! sample {
    ($type:ty, $bits:ty) => {
        impl Sample for $type {
            const EPSILON: f64 = <$type>::EPSILON as f64;
            fn from_any(bits: u64) -> Self {
                <$type>::from_bits(bits as $bits)
            }
            fn largest() -> Self {
                <$type>::MAX
            }
            fn smallest() -> Self {
                <$type>::from_bits(1)
            }
            fn by_magnitude(self, other: Self) -> Ordering {
                <$type>::total_cmp(&<$type>::abs(self), &<$type>::abs(other))
            }
        }
    };
}

sample!(f32, u32);
sample!(f64, u64);

pub fn row<R: Sample>(seed: u64, count: usize, flavour: Flavour) -> Vec<R> {
    let mut dice = Dice(seed);
    (0..count).map(|_| element(&mut dice, flavour)).collect()
}

/// One row a model.
pub fn rows<R: Sample>(seed: u64, models: usize, count: usize, flavour: Flavour) -> Vec<Vec<R>> {
    (0..models as u64).map(|model| row(seed ^ (model + 1) << 40, count, flavour)).collect()
}

fn element<R: Sample>(dice: &mut Dice, flavour: Flavour) -> R {
    match flavour {
        Flavour::Plain => R::of(dice.unit() * 2f64.powi(dice.below(8) as i32 - 6)),
        Flavour::Tied => {
            let step = dice.below(9) as f64 - 4.0;
            R::of(if step == 0.0 && dice.below(2) == 0 { -0.0 } else { step * 0.25 })
        }
        Flavour::Wild => match dice.below(24) {
            0 => R::of(f64::NAN),
            1 => R::of(f64::INFINITY),
            2 => R::of(f64::NEG_INFINITY),
            3 => R::of(-0.0),
            4 => R::ZERO,
            5 => R::smallest(),
            6 => R::from_any(1 + dice.below(1000)),
            7 => R::largest(),
            8 => R::ZERO - R::largest(),
            9 => R::ONE,
            _ => element(dice, Flavour::Plain),
        },
        Flavour::Bits => R::from_any(dice.next()),
    }
}

/// One number of that flavour.
pub fn element_of<R: Sample>(seed: u64, flavour: Flavour) -> R {
    element(&mut Dice(seed), flavour)
}

pub fn flavours() -> impl Strategy<Value = Flavour> {
    prop::sample::select(FLAVOURS.to_vec())
}

/// Nothing, one, odd, prime, about a kernel's strip, and more than a block of the engine.
pub fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => Just(0usize),
        1 => Just(1usize),
        6 => 2..150usize,
        3 => prop::sample::select(vec![255, 256, 509, 511, 512, 513, 1021, 1024, 1031]),
        1 => prop::sample::select(vec![16_384usize, 16_411]),
    ]
}
