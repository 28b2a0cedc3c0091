//! On which vector width does a loop run?
//!
//! A kernel is written once, as a plain loop. `wide!` compiles it three times (AVX-512, AVX2 with FMA, and the build's own baseline) and
//! picks by the processor, once a call: kernels work on blocks of thousands of elements, so the choice costs nothing. No variant reorders
//! a sum and none fuses unless the loop says `mul_add`, so all three give the same bits.

/// The widest instructions that this processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Baseline,
    Avx2,
    Avx512,
}

#[cfg(target_arch = "x86_64")]
pub fn width() -> Width {
    use std::sync::OnceLock;
    static WIDTH: OnceLock<Width> = OnceLock::new();
    *WIDTH.get_or_init(|| {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (avx2, avx512) {
            (true, true) => Width::Avx512,
            (true, false) => Width::Avx2,
            _ => Width::Baseline,
        }
    })
}

#[cfg(not(target_arch = "x86_64"))]
pub fn width() -> Width {
    Width::Baseline
}

/// Defines `fn name<R: Real>(…)` whose body runs on the widest vectors there are.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$R:ident>)? ($($arg:ident : $type:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<$R: $crate::dtype::Real>)? ($($arg: $type),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body $(<$R: $crate::dtype::Real>)? ($($arg: $type),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$R: $crate::dtype::Real>)? ($($arg: $type),*) $(-> $ret)? {
                    body $(::<$R>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$R: $crate::dtype::Real>)? ($($arg: $type),*) $(-> $ret)? {
                    body $(::<$R>)? ($($arg),*)
                }
                match $crate::wide::width() {
                    // SAFETY: `width` says so only where the processor has every feature that the function is compiled for.
                    $crate::wide::Width::Avx512 => unsafe { avx512 $(::<$R>)? ($($arg),*) },
                    // SAFETY: as above.
                    $crate::wide::Width::Avx2 => unsafe { avx2 $(::<$R>)? ($($arg),*) },
                    $crate::wide::Width::Baseline => body $(::<$R>)? ($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body $(::<$R>)? ($($arg),*)
        }
    };
}
