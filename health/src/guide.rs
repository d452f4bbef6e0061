//! The guide: how to use this crate, one page for each subject.

macro_rules! page {
    ($name:ident, $file:literal) => {
        // The pages link to files. These definitions of the same links come first, so they count.
        #[doc = "[custom-checks]: crate::guide::custom_checks"]
        #[doc = "[testing]: crate::guide::testing"]
        #[doc = "[kubernetes]: crate::guide::kubernetes"]
        #[doc = "[docker]: crate::guide::docker"]
        #[doc = "[operations]: crate::guide::operations"]
        #[doc = "[metrics]: crate::guide::metrics"]
        #[doc = ""]
        #[doc = include_str!(concat!("../guide/", $file))]
        pub mod $name {}
    };
}

page!(state, "state.md");
page!(custom_checks, "custom-checks.md");
page!(testing, "testing.md");
page!(backends, "backends.md");
page!(kubernetes, "kubernetes.md");
page!(docker, "docker.md");
page!(proxies, "proxies.md");
page!(operations, "operations.md");
page!(metrics, "metrics.md");
