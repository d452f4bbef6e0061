//! Access control with an allow-list of ten thousand networks, compared with a list of one.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use health::{AllowList, Check, IpNet};

use crate::{Measured, median, response::load, serve};

const NETWORKS: u32 = 10_000;
const ROUNDS: usize = 51;
const REQUEST_ROUNDS: usize = 5;

pub(crate) async fn measure() -> Vec<Measured> {
    let loopback: IpNet = "127.0.0.1/32".parse().unwrap();
    // All prefix lengths from /12 to /32, spread over all addresses except loopback.
    let network = |n: u32| {
        let address = Ipv4Addr::from(n.wrapping_mul(0x9e37_79b9));
        IpNet::new(address.into(), u8::try_from(12 + n % 21).unwrap()).unwrap().trunc()
    };
    let networks: Vec<_> = (1..=NETWORKS).map(network).filter(|network| !network.contains(&loopback)).collect();
    let short = AllowList::new([loopback]).unwrap();
    let long = AllowList::new(networks.iter().copied().chain([loopback])).unwrap();

    // Half of the addresses are in a network of the long list, the others are arbitrary.
    let address = |n: u32| match networks[n as usize % networks.len()].addr() {
        known if n.is_multiple_of(2) => known,
        _ => IpAddr::from(Ipv4Addr::from(n.wrapping_mul(0x85eb_ca6b))),
    };
    let addresses: Vec<_> = (0..4096).map(address).collect();
    let nanoseconds = |list: &AllowList| {
        let started = Instant::now();
        for &address in &addresses {
            black_box(list.contains(black_box(address)));
        }
        started.elapsed().as_secs_f64() * 1e9 / 4096.0
    };
    let mut ratios = Vec::new();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (one, many) = (nanoseconds(&short), nanoseconds(&long));
        ratios.push(many / one);
        times.push(many);
    }
    let ratio = median(ratios);

    let check = Check::new("service", "fine", || async { Ok::<_, String>(()) });
    let mut request_ratio = Vec::new();
    for round in 0..REQUEST_ROUNDS {
        // Alternating, so that neither is always measured second, on a warmer machine.
        let order = if round % 2 == 0 { [&short, &long] } else { [&long, &short] };
        let mut rates = Vec::new();
        for list in order {
            let (list, check) = (list.clone(), check.clone());
            let (address, handle) = serve(move |app| {
                app.service(health::scope().check(check.clone()).allow_list(&list));
            });
            rates.push(load(address, "/health").await);
            handle.stop(false).await;
        }
        request_ratio.push(if round % 2 == 0 { rates[1] / rates[0] } else { rates[0] / rates[1] });
    }
    let request_ratio = median(request_ratio);
    vec![
        Measured {
            what: "looking up an address in a list of 10,000 networks ÷ in a list of one".into(),
            value: format!("{ratio:.2} ({:.0} ns)", median(times)),
            bound: "at most 2".into(),
            holds: Some(ratio <= 2.0),
        },
        Measured {
            what: "requests per second of `GET /health` with that list ÷ with a list of one".into(),
            value: format!("{request_ratio:.3}"),
            bound: "at least 0.9".into(),
            holds: Some(request_ratio >= 0.9),
        },
    ]
}
