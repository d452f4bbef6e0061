#![doc = "[getting-started]: getting_started"]
#![doc = "[state]: state"]
#![doc = "[custom-checks]: custom_checks"]
#![doc = "[testing]: testing"]
#![doc = "[backends]: backends"]
#![doc = "[kubernetes]: kubernetes"]
#![doc = "[docker]: docker"]
#![doc = "[proxies]: proxies"]
#![doc = "[operations]: operations"]
#![doc = "[metrics]: metrics"]
#![doc = "[troubleshooting]: troubleshooting"]
#![doc = ""]
#![doc = include_str!("../guide/README.md")]

macro_rules! page {
    ($name:ident, $file:literal) => {
        // The pages link to files. These definitions of the same links come first, so they count.
        #[doc = "[state]: crate::guide::state"]
        #[doc = "[custom-checks]: crate::guide::custom_checks"]
        #[doc = "[testing]: crate::guide::testing"]
        #[doc = "[backends]: crate::guide::backends"]
        #[doc = "[kubernetes]: crate::guide::kubernetes"]
        #[doc = "[docker]: crate::guide::docker"]
        #[doc = "[proxies]: crate::guide::proxies"]
        #[doc = "[operations]: crate::guide::operations"]
        #[doc = "[metrics]: crate::guide::metrics"]
        #[doc = "[troubleshooting]: crate::guide::troubleshooting"]
        #[doc = ""]
        #[doc = include_str!(concat!("../guide/", $file))]
        pub mod $name {}
    };
}

page!(getting_started, "getting-started.md");
page!(state, "state.md");
page!(custom_checks, "custom-checks.md");
page!(testing, "testing.md");
page!(backends, "backends.md");
page!(kubernetes, "kubernetes.md");
page!(docker, "docker.md");
page!(proxies, "proxies.md");
page!(operations, "operations.md");
page!(metrics, "metrics.md");
page!(troubleshooting, "troubleshooting.md");
