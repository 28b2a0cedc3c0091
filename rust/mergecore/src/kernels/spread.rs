//! How much do the models differ in each element?

wide! {
    /// out ← the variance over the rows of each element (population), rounded once: in f64 the order of the rows hardly shows.
    pub fn variance<R>(out: &mut [R], rows: &[Vec<R>]) {
        const STRIP: usize = 512;
        let count = rows.len() as f64;
        let (mut mean, mut sum) = ([0f64; STRIP], [0f64; STRIP]);
        for (number, out) in out.chunks_mut(STRIP).enumerate() {
            let strip = |row: usize| &rows[row][number * STRIP..][..out.len()];
            mean.fill(0.0);
            sum.fill(0.0);
            // Less the first row's, so that equal elements differ by nothing, whatever 1/3 is rounded to.
            let first = strip(0);
            for row in 1..rows.len() {
                for (i, x) in strip(row).iter().enumerate() {
                    mean[i] += x.f64() - first[i].f64();
                }
            }
            mean[..out.len()].iter_mut().for_each(|mean| *mean /= count);
            for row in 0..rows.len() {
                for (i, x) in strip(row).iter().enumerate() {
                    let off = x.f64() - first[i].f64() - mean[i];
                    sum[i] += off * off;
                }
            }
            for (out, sum) in out.iter_mut().zip(&sum) {
                *out = R::of(sum / count);
            }
        }
    }
}

wide! {
    /// x ← x where `mark` is not zero, 0 elsewhere.
    pub fn keep_where<R>(x: &mut [R], mark: &[R]) {
        for (x, mark) in x.iter_mut().zip(mark) {
            *x = if *mark != R::ZERO { *x } else { R::ZERO };
        }
    }
}
