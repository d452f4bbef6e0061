//! [`Probe`], the trait of resource types, its implementations for pointers, and [`Session`], the erased type that checks hold.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
};

use futures_util::FutureExt as _;

use crate::{
    error::{ProbeError, ProbeErrorKind},
    options::CheckOptions,
};

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

    /// The options of its checks, for what a setter of [`Check`](crate::Check) or an attribute of the derive does not set. Defaults to those
    /// of any check. For a resource that is expensive to probe, for example, or that no service needs to run:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use health::{CheckOptions, Probe, ProbeError, Role};
    /// # struct Mailer;
    /// impl Probe for Mailer {
    ///     const GROUP: &'static str = "mail";
    ///     const OPTIONS: CheckOptions = {
    ///         let mut options = CheckOptions::new();
    ///         options.role = Role::Optional;
    ///         options.max_age = Some(Duration::from_secs(30));
    ///         options
    ///     };
    ///     // …
    /// #   async fn probe(&self) -> Result<(), ProbeError> { Ok(()) }
    /// }
    /// ```
    const OPTIONS: CheckOptions = CheckOptions::new();

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

    /// Opens the session of a check with this resource: a probe with state between its runs, such as a connection of its own. Defaults to
    /// `None`, with which the check holds the resource and calls [`Probe::probe`]. It is called on a worker, when a request first finds the
    /// state, so it must not block or panic: connect in the first run.
    ///
    /// # Examples
    ///
    /// A newtype whose checks remember as much as those of the pool in it:
    ///
    /// ```
    /// # #[cfg(feature = "sqlx")] mod example {
    /// use health::{Probe, ProbeError, Session};
    /// use sqlx::PgPool;
    ///
    /// #[derive(Clone)]
    /// struct Orders(PgPool);
    ///
    /// impl Probe for Orders {
    ///     const GROUP: &'static str = "database";
    ///
    ///     async fn probe(&self) -> Result<(), ProbeError> {
    ///         self.0.probe().await
    ///     }
    ///
    ///     fn session(&self) -> Option<Session> {
    ///         self.0.session()
    ///     }
    /// }
    /// # }
    /// ```
    fn session(&self) -> Option<Session> {
        None
    }

    /// Opens the session of a check with this resource in an [`Arc`], for a type that is not [`Clone`]. Defaults to
    /// [`session`](Self::session). Call that one as `Self::session(this)`: `this.session()` calls this function again.
    fn shared_session(this: &Arc<Self>) -> Option<Session> {
        Self::session(this)
    }
}

/// What a check holds and runs: a resource, or a probe with state between its runs. Its type is erased, and clones share the state.
///
/// [`Probe::session`] returns one.
///
/// # Examples
///
/// A mailer whose checks keep a connection:
///
/// ```
/// use std::sync::Arc;
///
/// use health::{Probe, ProbeError, Session};
/// use tokio::{net::TcpStream, sync::Mutex};
///
/// #[derive(Clone)]
/// struct Mailer(Arc<str>);
///
/// struct MailerSession {
///     mailer: Mailer,
///     connection: Mutex<Option<TcpStream>>,
/// }
///
/// impl Probe for MailerSession {
///     const GROUP: &'static str = Mailer::GROUP;
///
///     async fn probe(&self) -> Result<(), ProbeError> {
///         let mut connection = self.connection.lock().await;
///         if connection.is_none() {
///             *connection = Some(TcpStream::connect(&*self.mailer.0).await?);
///         }
///         // … and a command on that connection.
///         Ok(())
///     }
/// }
///
/// impl Probe for Mailer {
///     const GROUP: &'static str = "mail";
///
///     async fn probe(&self) -> Result<(), ProbeError> {
///         Ok(drop(TcpStream::connect(&*self.0).await?))
///     }
///
///     fn session(&self) -> Option<Session> {
///         Some(Session::new(MailerSession { mailer: self.clone(), connection: Mutex::default() }))
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Session(Arc<dyn DynProbe>);

impl Session {
    /// Erases the type of a probe. Its own [`Probe::session`] is not called.
    pub fn new(probe: impl Probe) -> Self {
        Self(Arc::new(Erased(probe)))
    }

    /// The session of a probe of this library.
    pub(crate) fn of_library(probe: impl LibraryProbe) -> Self {
        Self(Arc::new(ErasedLibraryProbe(probe)))
    }

    /// Opens the session of a resource.
    pub(crate) fn open(resource: impl Probe) -> Self {
        resource.session().unwrap_or_else(|| Self::new(resource))
    }

    /// Runs the probe once.
    ///
    /// # Errors
    ///
    /// Returns the error of the probe.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        self.0.probe().await
    }

    pub(crate) fn into_inner(self) -> Arc<dyn DynProbe> {
        self.0
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// Implements `Probe` for pointers to a probe `P`, which may be a trait object.
macro_rules! pointers_to_probes {
    ($($pointer:ty $(where P: $bound:tt Sized)?, $session:path;)*) => {$(
        impl<P: $crate::Probe $(+ $bound Sized)?> $crate::Probe for $pointer {
            const GROUP: &'static str = P::GROUP;
            const OPTIONS: $crate::CheckOptions = P::OPTIONS;

            fn probe(&self) -> impl ::std::future::Future<Output = Result<(), $crate::ProbeError>> + Send {
                P::probe(self)
            }

            fn resource(&self) -> Option<String> {
                P::resource(self)
            }

            fn session(&self) -> Option<$crate::Session> {
                $session(self)
            }
        }
    )*};
}

pub(crate) use pointers_to_probes;
pointers_to_probes! {
    Arc<P> where P: ?Sized, shared_session;
    Box<P> where P: ?Sized, P::session;
    &'static P where P: ?Sized, P::session;
}

/// The session of a resource behind a pointer: clones of the pointer are one resource.
#[expect(clippy::unnecessary_wraps, reason = "the macro calls it in place of `Probe::session`")]
pub(crate) fn shared_session<P: Probe + ?Sized>(pointer: &Arc<P>) -> Option<Session> {
    struct Pointed<P: ?Sized> {
        session: Session,
        /// Keeps the address in use.
        pointer: Arc<P>,
    }

    impl<P: Probe + ?Sized> DynProbe for Pointed<P> {
        fn probe(&self) -> BoxFuture<'_> {
            self.session.0.probe()
        }

        fn resource(&self) -> Option<String> {
            self.session.0.resource()
        }

        fn never_blocks(&self) -> bool {
            self.session.0.never_blocks()
        }

        fn address(&self) -> Option<usize> {
            self.session.0.address().or_else(|| Some(Arc::as_ptr(&self.pointer).cast::<()>().addr()))
        }
    }

    let session = P::shared_session(pointer).unwrap_or_else(|| Session::new(Arc::clone(pointer)));
    Some(Session(Arc::new(Pointed { session, pointer: Arc::clone(pointer) })))
}

/// A probe of this library. It never blocks its thread, so it runs on the thread that all of them share.
pub(crate) trait LibraryProbe: Send + Sync + 'static {
    fn probe(&self) -> impl Future<Output = Result<(), ProbeError>> + Send;

    /// See [`Probe::resource`].
    fn resource(&self) -> Option<String>;

    /// See [`DynProbe::address`].
    fn address(&self) -> Option<usize> {
        None
    }
}

/// Implements [`Probe`] for the type of a driver: its group, the type, the options of its checks, and a function from a reference to it to
/// the [`LibraryProbe`] that is the session of a check.
#[allow(unused_macros, reason = "without features there are no drivers")]
macro_rules! library_probe {
    ($group:literal $(<$($parameter:ident),+>)?, $resource:ty $(where {$($bounds:tt)+})? $(, $options:expr)? => $open:expr) => {
        impl $(<$($parameter),+>)? $crate::Probe for $resource $(where $($bounds)+)? {
            const GROUP: &'static str = $group;
            $(const OPTIONS: $crate::CheckOptions = $options;)?

            async fn probe(&self) -> Result<(), $crate::ProbeError> {
                $crate::probe::LibraryProbe::probe(&$open(self)).await
            }

            fn resource(&self) -> Option<String> {
                $crate::probe::LibraryProbe::resource(&$open(self))
            }

            fn session(&self) -> Option<$crate::Session> {
                Some($crate::Session::of_library($open(self)))
            }
        }
    };
}

#[allow(unused_imports, reason = "without features there are no drivers")]
pub(crate) use library_probe;

type BoxFuture<'a> = Pin<Box<dyn Future<Output = Result<(), ProbeError>> + Send + 'a>>;

/// A probe of any type, as checks hold it.
pub(crate) trait DynProbe: Send + Sync {
    fn probe(&self) -> BoxFuture<'_>;

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

struct Erased<P>(P);

impl<P: Probe> DynProbe for Erased<P> {
    fn probe(&self) -> BoxFuture<'_> {
        Box::pin(self.0.probe())
    }

    fn resource(&self) -> Option<String> {
        self.0.resource()
    }
}

struct ErasedLibraryProbe<P>(P);

impl<P: LibraryProbe> DynProbe for ErasedLibraryProbe<P> {
    fn probe(&self) -> BoxFuture<'_> {
        Box::pin(self.0.probe())
    }

    fn resource(&self) -> Option<String> {
        self.0.resource()
    }

    fn never_blocks(&self) -> bool {
        true
    }

    fn address(&self) -> Option<usize> {
        self.0.address()
    }
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
        Session::open(Arc::new(Box::new(Works))).probe().await.unwrap();
        Session::open(Box::new(Arc::new(Works))).probe().await.unwrap();
    }

    #[test]
    fn clones_of_a_pointer_have_one_address_and_other_pointers_have_another() {
        let (one, other) = (Arc::new(Works), Arc::new(Works));
        let address_of = |session: Session| session.into_inner().address();
        let address = |pointer: &Arc<Works>| address_of(Session::open(Arc::clone(pointer))).expect("it is a pointer");
        assert_eq!(address(&one), address(&one));
        assert_ne!(address(&one), address(&other));
        assert_eq!(address_of(Session::open(Box::new(Arc::clone(&one)))), Some(address(&one)));
        assert_eq!(address_of(Session::open(Works)), None);
    }
}
