//! States of a collector as a file may have them: an error, or a collector with that same state
//! which goes on collecting.
#![no_main]

use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::contexts::{Batch, Collector, Limits, State};
use pie_fast_fuzz::{number, up_to};

fn collected(u: &mut Unstructured<'_>) -> State {
    let k = up_to(u, 3);
    let limits = Limits { n_top: up_to(u, 3), n_sample: up_to(u, 3), n_silent: up_to(u, 3) };
    let mut collector = Collector::new(k, limits).expect("a few features");
    for _ in 0..up_to(u, 3) {
        let (first, n) = (up_to(u, 20) as i64, up_to(u, 4));
        let mut ptr = vec![0];
        (0..n).for_each(|i| ptr.push(ptr[i] + up_to(u, 3) as i64));
        let n_tokens = ptr[n] as usize;
        let counted: Vec<bool> = (0..n_tokens).map(|_| up_to(u, 3) > 0).collect();
        let values: Vec<f32> = (0..n_tokens * k).map(|_| number(u)).collect();
        if let Ok(batch) = Batch::new(first, &ptr, &values, k, &counted) {
            let _ = collector.add(&batch, Some(1));
        }
    }
    collector.state()
}

/// Change one number of one array, or its length.
fn spoil(state: &mut State, u: &mut Unstructured<'_>) {
    let which = up_to(u, 14);
    let value = [-1, 0, 1, 2, 7, i64::MAX, i64::MIN, up_to(u, 99) as i64][up_to(u, 7)];
    let (at, lengthen) = (up_to(u, 4000), up_to(u, 7) == 0);
    fn change<T>(all: &mut Vec<T>, at: usize, value: T, lengthen: bool) {
        if lengthen {
            if at % 2 == 0 { all.push(value) } else { drop(all.pop()) }
        } else if !all.is_empty() {
            let at = at % all.len();
            all[at] = value;
        }
    }
    let numbers = match which {
        0 => &mut state.limits,
        1 => &mut state.counts,
        2 => &mut state.seen,
        3 => &mut state.fires,
        4 => &mut state.coactive,
        5 => &mut state.histogram,
        6 => &mut state.peak_ptr,
        7 => &mut state.peak_sequence,
        8 => &mut state.peak_position,
        9 => &mut state.kept_ptr,
        10 => &mut state.kept_sequence,
        11 => &mut state.kept_values_ptr,
        12 => return change(&mut state.peak_value, at, number(u), lengthen),
        13 => return change(&mut state.kept_values, at, number(u), lengthen),
        _ => return change(&mut state.kept_kind, at, value as u8, lengthen),
    };
    change(numbers, at, value, lengthen);
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let good = collected(u);
    assert_eq!(Collector::from_state(&good).expect("its own state").state(), good);
    let mut state = good.clone();
    (0..up_to(u, 3)).for_each(|_| spoil(&mut state, u));
    let Ok(mut collector) = Collector::from_state(&state) else { return };
    let k = collector.n_features();
    let _ = collector.merge(&Collector::from_state(&good).expect("its own state"));
    let values: Vec<f32> = (0..3 * k).map(|_| number(u)).collect();
    if let Ok(batch) = Batch::new(40, &[0, 2, 3], &values, k, &[true, false, true]) {
        let _ = collector.add(&batch, Some(1));
    }
    assert_eq!(
        Collector::from_state(&collector.state()).expect("its own").state(),
        collector.state()
    );
});
