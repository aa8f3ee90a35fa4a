//! `pie_fast._native`: converts, detaches, maps errors; every computation is in `pie-fast-core`.

mod arrays;
mod contexts;
mod decoder;
mod delphi;
mod dump;
mod enter;
mod errors;
mod matrix;
mod select;
mod synergy;

/// The native part of `pie_fast`.
///
/// Free-threaded Python is not declared: nothing here was tested on it.
#[pyo3::pymodule(gil_used = true)]
mod _native {
    use crate::errors::to_python;
    use pie_fast_core::cpu::choose;
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::contexts::ContextCollector;
    #[pymodule_export]
    use super::decoder::{decoder_rows, redundancy, rows_at};
    #[pymodule_export]
    use super::delphi::{DelphiCache, delphi_tokens};
    #[pymodule_export]
    use super::dump::{Dump, Fold};
    #[pymodule_export]
    use super::select::{
        check_synergy, explain_selection, greedy_select, greedy_select_many, improve_by_swaps,
        top_k, top_k_per_layer,
    };
    #[pymodule_export]
    use super::synergy::{load_synergy, synergy_clusters, top_synergies, unpack_synergy};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        module.add("build_profile", profile)?;
        // Asked here, so that a wrong wish is an error of the import and not passed over.
        module.add("kernels", choose().map_err(to_python)?.name())
    }
}
