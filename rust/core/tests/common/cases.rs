//! On how many cases a property is tried.

use proptest::prelude::ProptestConfig;

/// At most `most`; fewer where `PROPTEST_CASES` says so, which `with_cases` would overrule.
pub fn cases(most: u32) -> ProptestConfig {
    let said = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig::with_cases(said.map_or(most, |few: u32| few.min(most)))
}
