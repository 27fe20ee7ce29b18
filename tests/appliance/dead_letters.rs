//! Dead letters of a running appliance, replayed over its management port: to the destination that is in force, whole, once.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use millrace::block::Signal;
use millrace::config::{Backend, Config};
use millrace::pipeline::dead_letters::{self, DeliveryLetter};
use millrace::pipeline::sources::SourceNames;
use millrace::queue::{AtRest, FileStorage, Storage};
use millrace::telemetry::health::Health;
use serde_json::{Value, json};

use super::feeder::one_span;
use super::rig::{LIMIT, Rig, config, exporter};
use super::sink::Sink;

/// Leaves letters in a state directory, as a process before this one would have.
fn leave(directory: &Path, letters: &[(&str, Vec<u8>)]) {
    let storage: Arc<dyn Storage> = Arc::new(FileStorage);
    let stores = dead_letters::start(&storage, directory, &AtRest::default(), SourceNames::default(), &Health::new())
        .expect("the stores open");
    for (destination, payload) in letters {
        let letter = DeliveryLetter {
            destination: (*destination).to_owned(),
            reason: "refused_by_peer",
            reply: "400".to_owned(),
            signal: Signal::Traces,
            payload: Bytes::copy_from_slice(payload),
        };
        assert!(stores.delivery.keep(letter, &|| ()));
    }
    let dead_letters::DeadLetterStores { front, aside, delivery, thread, .. } = stores;
    drop((front, aside, delivery));
    thread.join().expect("it does not panic");
}

fn replay(rig: &Rig, body: &Value) -> Value {
    post(rig.management(), body).expect("this host may ask, and gets an answer in time")
}

fn post(management: SocketAddr, body: &Value) -> Option<Value> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(LIMIT)).build().into();
    let url = format!("http://{management}/api/v1/dlq/replay");
    let text = agent.post(url).send(body.to_string()).ok()?.body_mut().read_to_string().ok()?;
    serde_json::from_str(&text).ok()
}

fn with(config: &Config, names: &[(&str, &Sink)]) -> Config {
    let exporters = names.iter().map(|(name, sink)| exporter(config, name, sink.address)).collect();
    Config { exporters, ..config.clone() }
}

#[test]
fn letters_go_to_the_destination_that_is_in_force_and_to_none_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (Sink::up(), Sink::up());
    leave(directory.path(), &[("a", one_span(1)), ("a", one_span(2)), ("a", one_span(3))]);
    let template = config(directory.path());
    let rig = Rig::start(&with(&template, &[("a", &first)]));

    // A change that fails after its exporters were opened: where the directory of `b` should be, there is a file.
    std::fs::write(directory.path().join("destinations").join("b"), "").unwrap();
    rig.reload(&with(&template, &[("a", &second), ("b", &second)])).unwrap_err();
    assert_eq!(replay(&rig, &json!({ "ids": ["delivery-1"] }))["replayed"], 1);
    assert_eq!((first.spans(), second.spans()), (1, 0), "nothing has changed");

    rig.reload(&with(&template, &[("a", &second)])).unwrap();
    assert_eq!(replay(&rig, &json!({ "ids": ["delivery-2"] }))["replayed"], 1);
    assert_eq!((first.spans(), second.spans()), (1, 1));

    rig.reload(&with(&template, &[("c", &second)])).unwrap();
    let answer = replay(&rig, &json!({ "all": true }));
    assert_eq!((&answer["replayed"], &answer["failed"][0]["why"]), (&json!(0), &json!("its destination does not run")));
    rig.reload(&with(&template, &[("a", &first)])).unwrap();
    assert_eq!(replay(&rig, &json!({ "all": true }))["replayed"], 1);
    assert_eq!((first.spans(), second.spans()), (2, 1));
    rig.stop();
}

#[test]
fn a_letter_that_was_cut_is_named_and_not_sent() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::up();
    leave(directory.path(), &[("a", one_span(1 << 20)), ("a", one_span(1))]);
    let rig = Rig::start(&with(&config(directory.path()), &[("a", &sink)]));
    let answer = replay(&rig, &json!({ "all": true }));
    let expected = json!([{ "id": "delivery-1", "why": "only its beginning was kept" }]);
    assert_eq!((&answer["replayed"], &answer["failed"], sink.spans()), (&json!(1), &expected, 1));
    let took = rig.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_destination_that_is_down_keeps_no_letter_of_another_from_being_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::up();
    leave(directory.path(), &[("down", one_span(1)), ("up", one_span(2)), ("down", one_span(3)), ("up", one_span(4))]);
    let template = config(directory.path());
    // Bound and closed again: nobody is there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporters = vec![exporter(&template, "down", nobody), exporter(&template, "up", sink.address)];
    let rig = Rig::start(&Config { exporters, ..template });
    let answer = replay(&rig, &json!({ "all": true }));
    assert_eq!((&answer["replayed"], &answer["failed"], sink.spans()), (&json!(2), &json!([]), 2));
    let stopped = answer["stopped"].as_str().unwrap();
    assert!(stopped.starts_with("down takes nothing now: ") && stopped.matches("takes").count() == 1, "{stopped}");
    rig.stop();
}

#[test]
fn a_replay_goes_on_behind_what_fails_again_when_it_is_told_how_far_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let sink = Sink::up();
    // Each is cut, so it fails; they are more than one replay takes.
    let mut letters: Vec<(&str, Vec<u8>)> = (0..9).map(|_| ("a", one_span(1 << 20))).collect();
    letters.push(("a", one_span(1)));
    leave(directory.path(), &letters);
    let rig = Rig::start(&with(&config(directory.path()), &[("a", &sink)]));
    let first = replay(&rig, &json!({ "all": true }));
    assert_eq!((&first["replayed"], &first["more"], sink.spans()), (&json!(0), &json!(true), 0));
    let second = replay(&rig, &json!({ "all": true, "after": first["last"] }));
    assert_eq!((&second["replayed"], &second["more"], sink.spans()), (&json!(1), &json!(false), 1));
    let failed = |answer: &Value| answer["failed"].as_array().unwrap().len();
    assert_eq!(failed(&first) + failed(&second), 9, "each was tried once");
    rig.stop();
}

#[test]
fn a_replay_whose_backend_never_answers_holds_a_stop_up_no_longer_than_the_drain() {
    let directory = tempfile::tempdir().unwrap();
    leave(directory.path(), &[("silent", one_span(1))]);
    // Whoever connects is let in by the kernel, and nobody ever reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(directory.path());
    let mut patient = exporter(&config, "silent", silent.local_addr().unwrap());
    let Backend::OtlpHttp(otlp) = &mut patient.backend else { panic!("the default destination speaks OTLP") };
    otlp.http.timeout = 2 * LIMIT;
    config.exporters = vec![patient];
    let rig = Rig::start(&config);
    let management = rig.management();
    let asked = thread::spawn(move || post(management, &json!({ "all": true })));
    let mut backend = silent.accept().unwrap().0;
    // It is being sent.
    backend.read_exact(&mut [0; 16]).unwrap();
    let took = rig.stop();
    assert!(took < config.drain_timeout + Duration::from_secs(5), "{took:?}");
    assert!(asked.join().unwrap().is_none(), "nobody is there to answer any more");
    drop(backend);

    let sink = Sink::up();
    let rig = Rig::start(&with(&config, &[("silent", &sink)]));
    assert_eq!(replay(&rig, &json!({ "all": true }))["replayed"], 1, "still a letter");
    rig.stop();
}

#[test]
fn a_reload_decides_whether_this_host_may_ask_without_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let (sink, all) = (Sink::up(), json!({ "all": true }));
    let mut config = with(&config(directory.path()), &[("a", &sink)]);
    let rig = Rig::start(&config);
    assert!(post(rig.management(), &all).is_some());
    config.management_trust_loopback = false;
    let tokens = directory.path().join("tokens");
    config.management_token_file = Some(tokens.clone());
    std::fs::write(&tokens, "0123456789abcdef").unwrap();
    assert_eq!(rig.renew(&config).unwrap(), ["management.token_file: its tokens have changed"]);
    assert_eq!(rig.renew(&config).unwrap(), Vec::<String>::new());
    assert!(post(rig.management(), &all).is_none());
    rig.stop();
}
