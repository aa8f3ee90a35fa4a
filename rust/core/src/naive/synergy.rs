use crate::synergy::CsrArrays;

/// Sort every row: magnitude descending, column ascending. See [`crate::synergy::top_per_row`].
///
/// `joint` is `[M (M - 1) / 2]`, packed, `single` `[M]`; all must be finite.
pub fn top_per_row(
    joint: &[f64],
    single: &[f64],
    t: usize,
    clipped: bool,
    symmetric: bool,
) -> CsrArrays {
    let n = single.len();
    let mut full = vec![vec![0.0_f32; n]; n];
    let mut packed = joint.iter();
    for i in 0..n {
        for j in i + 1..n {
            let joint = packed.next().copied().unwrap_or(0.0);
            let w = ((joint - single[i]) - single[j]) as f32;
            let w = if clipped { w.max(0.0) } else { w };
            full[i][j] = w;
            full[j][i] = w;
        }
    }
    let kept: Vec<Vec<usize>> = full
        .iter()
        .map(|row| {
            let mut columns: Vec<usize> = (0..n).filter(|&j| row[j] != 0.0).collect();
            columns.sort_by(|&a, &b| row[b].abs().total_cmp(&row[a].abs()));
            columns.truncate(t);
            columns
        })
        .collect();
    let mut csr = CsrArrays { indptr: vec![0], indices: Vec::new(), values: Vec::new() };
    for i in 0..n {
        for j in 0..n {
            if kept[i].contains(&j) || (symmetric && kept[j].contains(&i)) {
                csr.indices.push(j as i32);
                csr.values.push(full[i][j]);
            }
        }
        csr.indptr.push(csr.indices.len() as i64);
    }
    csr
}
