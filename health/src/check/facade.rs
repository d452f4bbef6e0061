//! The facade `metrics`: with the feature of that name, its recorder gets what `/health/metrics` shows of a run.

#[cfg(feature = "metrics")]
pub(super) use enabled::record;

/// Does nothing.
#[cfg(not(feature = "metrics"))]
pub(super) fn record(
    _: &super::CheckInner,
    _: super::state::Recorded,
    _: Option<&crate::error::ProbeError>,
    _: std::time::Duration,
    _: &crate::runtime::Runtime,
) {
}

#[cfg(feature = "metrics")]
mod enabled {
    use std::{
        sync::{Arc, Once},
        time::Duration,
    };

    use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

    use super::super::{CheckInner, state::Recorded};
    use crate::{error::ProbeError, runtime::Runtime, status::Status};

    /// Passes a result on. Called under the lock of the check, so the recorder, which is user code, runs on the thread `health-log`.
    pub(in super::super) fn record(
        check: &CheckInner,
        recorded: Recorded,
        error: Option<&ProbeError>,
        latency: Duration,
        runtime: &Runtime,
    ) {
        let group = Label::new("group", Arc::clone(&check.group));
        let name = Label::new("name", Arc::clone(&check.name));
        let role = Label::from_static_parts("role", check.options.role.as_str());
        let result = match error.map_or(Status::Up, ProbeError::status) {
            Status::Up => "up",
            Status::Degraded => "degraded",
            Status::Down => "down",
        };
        let result = Label::from_static_parts("result", result);
        runtime.defer(move || {
            describe();
            let status = recorded.after;
            let of_check = vec![group, name];
            let with = |label| [of_check.clone(), vec![label]].concat();
            gauge!("health_check_up", with(role)).set(u8::from(status != Status::Down));
            gauge!("health_check_degraded", of_check.clone()).set(u8::from(status == Status::Degraded));
            if recorded.is_counted {
                counter!("health_check_runs_total", with(result)).increment(1);
                histogram!("health_check_duration_seconds", of_check.clone()).record(latency);
            }
        });
    }

    /// Describes the metrics once, to the recorder of the first result.
    fn describe() {
        static DESCRIBED: Once = Once::new();
        DESCRIBED.call_once(|| {
            describe_gauge!(
                "health_check_up",
                "Whether the check is UP or DEGRADED (1) or DOWN (0), after rise and fall."
            );
            describe_gauge!("health_check_degraded", "Whether the check is DEGRADED (1) or not (0).");
            describe_counter!(
                "health_check_runs_total",
                "Completed runs of the check by result, before rise and fall."
            );
            describe_histogram!(
                "health_check_duration_seconds",
                Unit::Seconds,
                "Duration of runs of the check. A run past its limit counts with its limit."
            );
        });
    }

    #[cfg(test)]
    mod tests {
        use std::sync::atomic::{AtomicBool, Ordering};

        use metrics::{
            Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString,
        };
        use parking_lot::Mutex;

        use super::*;
        use crate::check::Check;

        /// The values that were recorded, as text.
        #[derive(Clone, Default)]
        struct Values(Arc<Mutex<Vec<String>>>);

        struct Value {
            key: Key,
            values: Values,
        }

        impl Value {
            fn add(&self, value: f64) {
                let mut labels: Vec<_> =
                    self.key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
                labels.sort();
                // A run takes some time.
                let value = if self.key.name().ends_with("seconds") { value.ceil() } else { value };
                self.values.0.lock().push(format!("{}{{{}}} {value}", self.key.name(), labels.join(",")));
            }
        }

        impl CounterFn for Value {
            fn increment(&self, value: u64) {
                self.add(f64::from(u8::try_from(value).unwrap()));
            }

            fn absolute(&self, _: u64) {
                unreachable!("counters are incremented");
            }
        }

        impl GaugeFn for Value {
            fn increment(&self, _: f64) {
                unreachable!("gauges are set");
            }

            fn decrement(&self, _: f64) {
                unreachable!("gauges are set");
            }

            fn set(&self, value: f64) {
                self.add(value);
            }
        }

        impl HistogramFn for Value {
            fn record(&self, value: f64) {
                self.add(value);
            }
        }

        impl Values {
            fn value(&self, key: &Key) -> Arc<Value> {
                Arc::new(Value { key: key.clone(), values: self.clone() })
            }
        }

        impl Recorder for Values {
            fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

            fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

            fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

            fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
                Counter::from_arc(self.value(key))
            }

            fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
                Gauge::from_arc(self.value(key))
            }

            fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
                Histogram::from_arc(self.value(key))
            }
        }

        #[tokio::test(start_paused = true)]
        async fn the_recorder_gets_each_run_once_and_the_shown_status() {
            let values = Values::default();
            let _recorder = metrics::set_default_local_recorder(&values);
            let is_up = Arc::new(AtomicBool::new(true));
            let switch = Arc::clone(&is_up);
            let hangs = Duration::from_secs(10);
            let check = Check::new("queue", "orders", move || {
                let is_up = switch.load(Ordering::SeqCst);
                async move {
                    if is_up {
                        Ok(())
                    } else {
                        tokio::time::sleep(hangs).await;
                        Err("it hung")
                    }
                }
            })
            .optional()
            .timeout(Duration::from_secs(1));
            let runtime = Runtime::on(tokio::runtime::Handle::current());
            let run = async || {
                check.inner().run_if_due(Duration::ZERO, &runtime);
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            let taken = || std::mem::take(&mut *values.0.lock());
            run().await;
            let up = [
                "health_check_up{group=queue,name=orders,role=optional} 1",
                "health_check_degraded{group=queue,name=orders} 0",
                "health_check_runs_total{group=queue,name=orders,result=up} 1",
                "health_check_duration_seconds{group=queue,name=orders} 0",
            ];
            assert_eq!(taken(), up);

            // A run that hangs is recorded as down at its limit, and again with each request after it. It is one run.
            is_up.store(false, Ordering::SeqCst);
            run().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let timed_out = [
                "health_check_up{group=queue,name=orders,role=optional} 0",
                "health_check_degraded{group=queue,name=orders} 0",
                "health_check_runs_total{group=queue,name=orders,result=down} 1",
                "health_check_duration_seconds{group=queue,name=orders} 1",
            ];
            assert_eq!(taken(), timed_out);
            tokio::time::sleep(Duration::from_secs(2)).await;
            run().await;
            assert_eq!(taken(), timed_out[..2]);
        }
    }
}
