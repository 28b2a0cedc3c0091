//! The product of two thin matrices, a piece of a row at a time.

wide! {
    /// out_j = Σₖ left_k · right_kj, each added in the order of k and rounded once (fused). `right` has a row of `stride` elements for each k,
    /// of which those from `column` on are meant.
    pub fn row<R>(left: &[R], right: &[R], stride: usize, column: usize, out: &mut [R]) {
        out.fill(R::ZERO);
        let count = out.len();
        let of = |k: usize| &right[k * stride + column..][..count];
        let mut fours = left.chunks_exact(4);
        let mut k = 0;
        // Four at a time: the sum stays in a register in between.
        for l in &mut fours {
            let (a, b, c, d) = (of(k), of(k + 1), of(k + 2), of(k + 3));
            for j in 0..count {
                let sum = a[j].mul_add(l[0], out[j]);
                let sum = b[j].mul_add(l[1], sum);
                let sum = c[j].mul_add(l[2], sum);
                out[j] = d[j].mul_add(l[3], sum);
            }
            k += 4;
        }
        for l in fours.remainder() {
            for (sum, x) in out.iter_mut().zip(of(k)) {
                *sum = x.mul_add(*l, *sum);
            }
            k += 1;
        }
    }
}

wide! {
    /// x_j ← x_j · factor_j
    pub fn stretch<R>(x: &mut [R], factors: &[R]) {
        for (x, f) in x.iter_mut().zip(factors) {
            *x = *x * *f;
        }
    }
}

wide! {
    /// sum_j ← sum_j + x_j², in f64.
    pub fn add_squares<R>(sums: &mut [f64], x: &[R]) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x.f64() * x.f64();
        }
    }
}
