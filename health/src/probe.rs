//! [`Probe`], what a resource type implements, its pointers, and the one erased form that checks hold.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use futures_util::FutureExt as _;

use crate::error::{ProbeError, ProbeErrorKind};

/// One question to one resource: do you answer?
///
/// Implement it for the types of your own that a service depends on; the derive then finds every field of that type.
/// A probe should make the resource do real work, in one round trip, on the connections that the application itself uses.
/// It needs no timeout of its own: each check has one. It must not block its thread: what blocks belongs into
/// `tokio::task::spawn_blocking` or `actix_web::web::block`.
///
/// The derive keeps a clone of the field, so the type is [`Clone`] too, or the field is an [`Arc`] of it.
///
/// # Examples
///
/// ```
/// use health::{ProbeErrorKind, Probe, ProbeError};
///
/// #[derive(Clone)]
/// struct Mailer { /* … */ }
///
/// impl Mailer {
///     async fn noop(&self) -> Result<u16, std::io::Error> { Ok(250) }
/// }
///
/// impl Probe for Mailer {
///     const GROUP: &'static str = "service";
///
///     async fn probe(&self) -> Result<(), ProbeError> {
///         match self.noop().await? {
///             250 => Ok(()),
///             code => Err(ProbeError::new(ProbeErrorKind::Failed, format!("the mail server answered {code}"))),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Probe`",
    label = "this type cannot be health-checked",
    note = "implement `health::Probe` for `{Self}`, or for a pool, connection or client, enable its feature of `health`"
)]
pub trait Probe: Send + Sync + 'static {
    /// What kind of resource it is, and the first part of the check's name: `database`, `cache`, `queue`, `service`,
    /// `system` or a word of your own. Not one of `health`, `live`, `ready` and `startup`, and without a `/`.
    const GROUP: &'static str;

    /// Asks the resource once.
    ///
    /// # Errors
    ///
    /// The resource does not answer, or not as it should. `?` turns any [`std::io::Error`] and the errors of the
    /// backends that are switched on into a [`ProbeError`]; [`ProbeError::from_error`] takes any other.
    fn probe(&self) -> impl Future<Output = Result<(), ProbeError>> + Send;

    /// What the log calls the resource when it fails, e.g. `postgres at 127.0.0.1:5432`. Default is nothing: then the check's
    /// name must do.
    fn resource(&self) -> Option<String> {
        None
    }

    /// It never blocks its thread, and so may share one with others of the kind.
    #[doc(hidden)]
    const NEVER_BLOCKS: bool = false;

    /// The form in which a check keeps the resource, where that is not the resource itself: a probe that has
    /// something to remember from one run to the next (a connection of its own) makes it here.
    #[doc(hidden)]
    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        None
    }

    /// As `kept`, for a resource that is no clone of itself: what is kept holds the pointer.
    #[doc(hidden)]
    fn kept_shared(this: &Arc<Self>) -> Option<Arc<dyn DynProbe>>
    where
        Self: Sized,
    {
        // Not `this.kept()`, which is that of the pointer and asks here again.
        Self::kept(this)
    }
}

/// A pointer to a probe is a probe, and keeps what that keeps.
macro_rules! pointers_to_probes {
    ($($pointer:ident: $kept:ident),*) => {$(
        impl<P: $crate::Probe> $crate::Probe for $pointer<P> {
            const GROUP: &'static str = P::GROUP;
            const NEVER_BLOCKS: bool = P::NEVER_BLOCKS;

            fn probe(&self) -> impl ::std::future::Future<Output = Result<(), $crate::ProbeError>> + Send {
                P::probe(self)
            }

            fn resource(&self) -> Option<String> {
                P::resource(self)
            }

            fn kept(&self) -> Option<::std::sync::Arc<dyn $crate::probe::DynProbe>> {
                P::$kept(self)
            }
        }
    )*};
}

pub(crate) use pointers_to_probes;
pointers_to_probes!(Arc: kept_shared, Box: kept);

/// A probe with its type erased: what a check asks.
#[doc(hidden)]
pub trait DynProbe: Send + Sync {
    fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>>;

    fn resource(&self) -> Option<String> {
        None
    }

    fn never_blocks(&self) -> bool {
        false
    }
}

/// Erases a probe's type.
pub(crate) fn erase<P: Probe>(probe: P) -> Arc<dyn DynProbe> {
    struct Erased<P>(P);

    impl<P: Probe> DynProbe for Erased<P> {
        fn ask(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
            Box::pin(self.0.probe())
        }

        fn resource(&self) -> Option<String> {
            self.0.resource()
        }

        fn never_blocks(&self) -> bool {
            P::NEVER_BLOCKS
        }
    }

    probe.kept().unwrap_or_else(|| Arc::new(Erased(probe)))
}

/// Runs a probe. A panic, of the call or of its future, is a failure; with `panic = "abort"` it ends the process.
pub(crate) async fn probe_catching_panics(probe: &dyn DynProbe) -> Result<(), ProbeError> {
    let probing = AssertUnwindSafe(async { probe.ask().await });
    probing.catch_unwind().await.unwrap_or_else(|payload| {
        let text = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => {
                let text = payload.downcast_ref::<&str>().map_or("a payload that is not text", |text| *text).to_owned();
                drop_catching_panics(payload);
                text
            }
        };
        Err(ProbeError::new(ProbeErrorKind::Panicked, "the check panicked").with_source(text))
    })
}

/// Drops what a user's destructor may be part of. Its panic must not end the run before that is recorded.
pub(crate) fn drop_catching_panics<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // It may panic when it is dropped, too.
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pointer_to_a_probe_that_keeps_nothing_is_asked_itself() {
        struct Answers;

        impl Probe for Answers {
            const GROUP: &'static str = "service";

            async fn probe(&self) -> Result<(), ProbeError> {
                Ok(())
            }
        }

        assert!(Arc::new(Answers).kept().is_none());
        erase(Arc::new(Box::new(Answers))).ask().await.unwrap();
    }
}
