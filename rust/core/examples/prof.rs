#![allow(missing_docs, clippy::unwrap_used)]
use pie_fast_core::{
    dump::Dump,
    score::{RankBy, score},
};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let d = Dump::open(&a[1]).unwrap();
    let th = a[2].parse().unwrap();
    for _ in 0..a[3].parse().unwrap() {
        let s = score(&d, RankBy::MeanAbs, Some(th), &mut |_, _| Ok(())).unwrap();
        assert!(s.len() > 1);
    }
}
