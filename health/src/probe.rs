//! [`Probe`], the trait of resource types, its implementations for pointers, and [`DynProbe`], the erased type that checks hold.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use futures_util::FutureExt as _;

use crate::error::{ProbeError, ProbeErrorKind};

/// Checks that one resource works.
///
/// Implement it for your own types that the service depends on; the derive then probes every field of that type. A probe should
/// make the resource do real work in one round trip, on the connections that the application uses. It needs no timeout, because
/// each check has one. It must not block its thread: use `actix_web::web::block` or `tokio::task::spawn_blocking` for blocking
/// work.
///
/// The derive keeps a clone of the field, so the type must be [`Clone`], or the field an [`Arc`] of it. It may be a trait object: with
/// `impl Probe for dyn Repository`, a field of the type `Arc<dyn Repository>` is probed.
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
///             code => Err(ProbeError::new(ProbeErrorKind::Failed, format!("unexpected reply {code} from the mail server"))),
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
    /// The kind of resource, and the group of its checks: `database`, `cache`, `queue`, `service`, `mail`, `storage`, `system`, or
    /// a word of your own. It must be a segment of a path and not one of the scope's own paths, such as `ready`.
    const GROUP: &'static str;

    /// Probes the resource once.
    ///
    /// # Errors
    ///
    /// The resource does not respond, or its response is not as expected. `?` converts an [`std::io::Error`] into a [`ProbeError`],
    /// and [`ProbeError::from_error`] any other error.
    fn probe(&self) -> impl Future<Output = Result<(), ProbeError>> + Send;

    /// The name of the resource in log lines, for example `postgres at 127.0.0.1:5432`. Credentials in it are redacted. Defaults to
    /// `None`; then log lines have only the name of the check.
    fn resource(&self) -> Option<String> {
        None
    }

    /// Whether it never blocks its thread, and so runs on the thread of the library's probes.
    #[doc(hidden)]
    const NEVER_BLOCKS: bool = false;

    /// The probe that a check holds instead of the resource, if the probe has state between runs, such as a connection of its own.
    #[doc(hidden)]
    fn kept(&self) -> Option<Arc<dyn DynProbe>> {
        None
    }

    /// The same for a resource that is not `Clone`: the returned probe holds the pointer.
    #[doc(hidden)]
    fn kept_shared(this: &Arc<Self>) -> Option<Arc<dyn DynProbe>> {
        // Not `this.kept()`: on `Arc` that calls this function.
        Self::kept(this)
    }
}

/// Implements `Probe` for pointers to a probe `P`, which may be a trait object.
macro_rules! pointers_to_probes {
    ($($pointer:ty $(where P: $bound:tt Sized)?, $kept:ident;)*) => {$(
        impl<P: $crate::Probe $(+ $bound Sized)?> $crate::Probe for $pointer {
            const GROUP: &'static str = P::GROUP;
            const NEVER_BLOCKS: bool = P::NEVER_BLOCKS;

            fn probe(&self) -> impl ::std::future::Future<Output = Result<(), $crate::ProbeError>> + Send {
                P::probe(self)
            }

            fn resource(&self) -> Option<String> {
                P::resource(self)
            }

            fn kept(&self) -> Option<::std::sync::Arc<dyn $crate::probe::DynProbe>> {
                $crate::probe::$kept::<P>(self)
            }
        }
    )*};
}

pub(crate) use pointers_to_probes;
pointers_to_probes! {
    Arc<P> where P: ?Sized, kept_shared;
    Box<P> where P: ?Sized, kept_inner;
    &'static P where P: ?Sized, kept_inner;
}

/// A [`Probe`] of any type, as checks hold it.
#[doc(hidden)]
pub trait DynProbe: Send + Sync {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>>;

    fn resource(&self) -> Option<String> {
        None
    }

    fn never_blocks(&self) -> bool {
        false
    }

    /// The address of what all clones of the resource share. No other resource of its type has it while this probe is alive. `None`
    /// if the type does not reveal one.
    fn address(&self) -> Option<usize> {
        None
    }
}

/// Erases a probe's type.
pub(crate) fn erase<P: Probe>(probe: P) -> Arc<dyn DynProbe> {
    probe.kept().unwrap_or_else(|| Arc::new(Erased(probe)))
}

struct Erased<P>(P);

impl<P: Probe> DynProbe for Erased<P> {
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
        Box::pin(self.0.probe())
    }

    fn resource(&self) -> Option<String> {
        self.0.resource()
    }

    fn never_blocks(&self) -> bool {
        P::NEVER_BLOCKS
    }
}

/// The probe of a resource that a pointer owns.
pub(crate) fn kept_inner<P: Probe + ?Sized>(resource: &P) -> Option<Arc<dyn DynProbe>> {
    resource.kept()
}

/// The probe of a resource behind a pointer: clones of the pointer are one resource.
#[expect(clippy::unnecessary_wraps, reason = "the macro calls it in place of `kept_inner`")]
pub(crate) fn kept_shared<P: Probe + ?Sized>(pointer: &Arc<P>) -> Option<Arc<dyn DynProbe>> {
    struct Pointed<P: ?Sized> {
        probe: Arc<dyn DynProbe>,
        /// Keeps the address in use.
        pointer: Arc<P>,
    }

    impl<P: Probe + ?Sized> DynProbe for Pointed<P> {
        fn probe(&self) -> Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + '_>> {
            self.probe.probe()
        }

        fn resource(&self) -> Option<String> {
            self.probe.resource()
        }

        fn never_blocks(&self) -> bool {
            self.probe.never_blocks()
        }

        fn address(&self) -> Option<usize> {
            self.probe.address().or_else(|| Some(Arc::as_ptr(&self.pointer).cast::<()>().addr()))
        }
    }

    let probe = P::kept_shared(pointer).unwrap_or_else(|| Arc::new(Erased(Arc::clone(pointer))));
    Some(Arc::new(Pointed { probe, pointer: Arc::clone(pointer) }))
}

/// Runs a probe. A panic of the call or of its future is an error; with `panic = "abort"` it ends the process.
pub(crate) async fn probe_catching_panics(probe: &dyn DynProbe) -> Result<(), ProbeError> {
    let run = AssertUnwindSafe(async { probe.probe().await });
    run.catch_unwind().await.unwrap_or_else(|payload| {
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

/// Drops a value that may have a user's destructor, whose panic must not end a run before its result is recorded.
pub(crate) fn drop_catching_panics<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // The destructor of the payload may panic, too.
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Works;

    impl Probe for Works {
        const GROUP: &'static str = "service";

        async fn probe(&self) -> Result<(), ProbeError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_pointer_to_a_probe_is_a_probe() {
        erase(Arc::new(Box::new(Works))).probe().await.unwrap();
        erase(Box::new(Arc::new(Works))).probe().await.unwrap();
    }

    #[test]
    fn clones_of_a_pointer_have_one_address_and_other_pointers_have_another() {
        let (one, other) = (Arc::new(Works), Arc::new(Works));
        let address = |pointer: &Arc<Works>| erase(Arc::clone(pointer)).address().expect("it is a pointer");
        assert_eq!(address(&one), address(&one));
        assert_ne!(address(&one), address(&other));
        assert_eq!(erase(Box::new(Arc::clone(&one))).address(), Some(address(&one)));
        assert_eq!(erase(Works).address(), None);
    }
}
