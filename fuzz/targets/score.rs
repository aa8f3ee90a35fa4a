//! Good dumps in any number of shards: scores and rankings are those of the definition.
#![no_main]

use half::{bf16, f16};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use pie_fast_core::dump::Dump;
use pie_fast_core::ranking::{Filter, active_features, top_k};
use pie_fast_core::score::RankBy;
use pie_fast_core::{Error, Scored, naive};
use pie_fast_fuzz::{
    folder, manifest, number, prompts, safetensors, same_scores, shard_line, up_to, write,
};
use std::collections::BTreeMap;

type Prompt = BTreeMap<(u32, u32), (f32, f32)>;

fn read_prompts(u: &mut Unstructured<'_>, n_ids: usize) -> Vec<Prompt> {
    let finite = |x: f32| if x.abs() < 6e4 { x } else { 1.0 };
    let n_kinds = 1 + up_to(u, 5);
    let kinds: Vec<Prompt> = (0..n_kinds)
        .map(|_| {
            let pairs = 0..up_to(u, 12);
            pairs
                .map(|_| {
                    let pair = (up_to(u, n_ids - 1) as u32, up_to(u, 5) as u32);
                    (pair, (finite(number(u)), finite(number(u))))
                })
                .collect()
        })
        .collect();
    // Few kinds again and again, so that some inputs have several blocks of 256 prompts.
    (0..up_to(u, 600)).map(|i| kinds[i * i % n_kinds].clone()).collect()
}

fn column<T, const N: usize>(all: &[T], bytes: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
    all.iter().flat_map(bytes).collect()
}

fn shard(prompts: &[Prompt], store: usize) -> (Vec<u8>, usize) {
    let mut ptr = vec![0i64];
    prompts.iter().for_each(|prompt| ptr.push(ptr[ptr.len() - 1] + prompt.len() as i64));
    let all: Vec<_> = prompts.iter().flatten().collect();
    let (dtype, activation) = match store % 3 {
        0 => ("F32", column(&all, |(_, (a, _))| a.to_le_bytes())),
        1 => ("F16", column(&all, |(_, (a, _))| f16::from_f32(*a).to_le_bytes())),
        _ => ("BF16", column(&all, |(_, (a, _))| bf16::from_f32(*a).to_le_bytes())),
    };
    let (wide, position) = match store / 3 % 2 {
        0 => ("U16", column(&all, |((_, p), _)| (*p as u16).to_le_bytes())),
        _ => ("U32", column(&all, |((_, p), _)| p.to_le_bytes())),
    };
    let mut columns = vec![
        ("prompt_ptr", "I64", ptr.len(), column(&ptr, |x| x.to_le_bytes())),
        ("feature", "U32", all.len(), column(&all, |((f, _), _)| f.to_le_bytes())),
        ("activation", dtype, all.len(), activation),
        ("position", wide, all.len(), position),
    ];
    if store < 6 {
        let attribution = column(&all, |(_, (_, g))| g.to_le_bytes());
        columns.insert(2, ("attribution", "F32", all.len(), attribution));
    }
    (safetensors(&columns), all.len())
}

fn ranking(dump: &Dump, k: usize, rank_by: RankBy, prompts: &[naive::score::Prompt]) {
    let scores = naive::score::score(prompts, dump.n_ids() as usize, rank_by);
    let has = |id: usize| prompts.iter().flatten().any(|entry| entry.0 as usize == id);
    let mut all: Vec<Scored> = (0..scores.len())
        .filter(|&id| has(id))
        .map(|id| Scored::new(id as u64, scores[id]).expect("finite"))
        .collect();
    all.sort();
    let best = top_k(dump, k, rank_by, &Filter::default(), Some(1), &mut |_, _| Ok(()));
    if k <= all.len() {
        all.truncate(k);
        assert_eq!(best.expect("k of them"), all);
    } else {
        assert!(matches!(best, Err(Error::Budget(_))));
    }
}

fuzz_target!(|data: &[u8]| {
    let u = &mut Unstructured::new(data);
    let (n_layers, n_features) = (1 + up_to(u, 3), 1 + up_to(u, 40));
    let (store, k, n_cuts) = (up_to(u, 11), up_to(u, 30), up_to(u, 4));
    let cuts: Vec<usize> = (0..n_cuts).map(|_| up_to(u, 600)).collect();
    let all = read_prompts(u, n_layers * n_features);
    let mut ends: Vec<usize> = cuts.iter().map(|&cut| cut.min(all.len())).collect();
    ends.push(all.len());
    ends.sort_unstable();
    let (mut lines, mut first) = (Vec::new(), 0);
    for (i, &end) in ends.iter().enumerate() {
        let (bytes, n_active) = shard(&all[first..end], store);
        write(&format!("s{i}"), &bytes);
        lines.push(shard_line(&format!("s{i}"), first, end - first, n_active, bytes.len()));
        first = end;
    }
    let text = manifest(n_layers as u64, n_features as u64, all.len(), &lines);
    write("manifest.json", text.as_bytes());
    let dump = Dump::open(folder()).expect("a good dump");
    let entries = dump.entries(0, dump.n_prompts()).expect("a good dump");
    let pairs: Vec<_> = all.iter().flatten().map(|(pair, _)| *pair).collect();
    let read = entries.feature.iter().copied().zip(entries.position.iter().copied());
    assert!(pairs.into_iter().eq(read));
    same_scores(&dump, &entries);
    let plain = prompts(&entries);
    let n_ids = n_layers * n_features;
    for (_, rank_by) in RankBy::NAMES {
        if !rank_by.needs_attribution() || store < 6 {
            ranking(&dump, k, rank_by, &plain);
        }
    }
    let count = naive::score::score(&plain, n_ids, RankBy::Count);
    let active: Vec<i64> = (0..n_ids).filter(|&i| count[i] > 0.0).map(|i| i as i64).collect();
    assert_eq!(active_features(&dump, Some(1), &mut |_, _| Ok(())).expect("good"), active);
});
