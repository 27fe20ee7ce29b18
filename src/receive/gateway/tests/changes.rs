//! A gateway that stops, is idle, or is changed by a reload.

use std::net::TcpStream;

use super::super::*;
use super::harness::{DURABLE, PROTOBUF, Policy, Rig, connect, limits, read_reply, request, send, span};
use crate::block::VerdictOutcome;
use crate::config::{Mapping, OtherSourcetypes};
use crate::uberagent::{Encoder, Origin, Outcome};

#[test]
fn a_drain_finishes_what_is_in_flight() {
    let mut rig = Rig::start(Policy::Hold, 100);
    let mut stream = connect(rig.otlp);
    send(&mut stream, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(1, 10)]));
    while rig.outlet.blocks().is_empty() {
        std::thread::yield_now();
    }
    rig.stop.store(true, Ordering::Release);
    rig.outlet.doorbell.ring();
    while TcpStream::connect(rig.otlp).is_ok() {}
    rig.outlet.answer_all(VerdictOutcome::Durable);
    let reply = read_reply(&mut stream).unwrap();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    rig.stop();
}

#[test]
fn what_no_writer_takes_before_the_stop_is_counted() {
    let rig = Rig::start(Policy::Hold, 8);
    let intake = Intake::new(rig.outlet.clone());
    let uberagent = config::Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter };
    let rows = intake.add_rows(SourceId(1), Encoder::new(uberagent, SourceId(1)));
    let passed = intake.add_passed(SourceId(0));
    let spans = request(vec![span(1, 10), span(2, 10)]);
    intake.merge(passed, 5, &spans, crate::otlp::check::check(&spans).unwrap().summary).unwrap();
    let row = format!("{{\"LogonProcType\":\"x\",\"SessionGUID\":\"{}\"}}", "1".repeat(32));
    let decode = |encoder: &mut Encoder, _| encoder.json(row.as_bytes(), Origin::default(), 5);
    assert!(matches!(intake.rows(rows, decode).unwrap().0, Outcome::Encoded { .. }));
    rig.outlet.ring.lock().unwrap().capacity = 0;
    let lost = intake.abandon();
    assert!(rig.outlet.blocks().is_empty() && intake.is_handed_over());
    let counters = HttpCounters::default();
    lost.iter().for_each(|meta| count_lost(&counters, meta));
    assert_eq!((counters.spans_lost.get(), counters.records_lost.get()), (2, 1));
}

#[test]
fn an_idle_gateway_ticks_and_one_that_has_stopped_is_expected_to_be_silent() {
    let mut rig = Rig::start(DURABLE, 100);
    let from = clock::monotonic();
    // Only a tick that came half a second or more after the start is young enough then.
    let ticked = || rig.health.live(from + Duration::from_millis(3500)).yes;
    while !ticked() {
        assert!(clock::monotonic() < from + Duration::from_secs(10), "no tick since the start");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    rig.stop();
    assert_eq!(rig.health.live(Duration::from_secs(1 << 20)).lines, ["[+] gateway: ended"]);
}

impl Rig {
    /// Has a change adopted.
    fn change(&self, close: Vec<u16>, serve: Vec<Listener>) {
        let (adopted, adoption) = crossbeam::channel::bounded(1);
        let close = close.into_iter().map(SourceId).collect();
        assert!(self.changer.send(DoorChanges { close, serve, remap: false, adopted }).is_ok());
        adoption.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    /// The OTLP door over another socket, under these limits.
    fn otlp_door(&self, limits: HttpLimits) -> Listener {
        Listener {
            socket: TcpListener::bind("127.0.0.1:0").unwrap(),
            source: SourceId(0),
            kind: DoorKind::OtlpHttp,
            front: self.fronts[0].clone(),
            table: ConnectionTable::new(limits.max_connections, limits.max_connections_per_ip),
            limits,
            counters: self.counters[0].clone(),
            uberagent: config::Uberagent { mapping: Mapping::Session, other_sourcetypes: OtherSourcetypes::Filter },
        }
    }
}

#[test]
fn a_door_that_changes_keeps_its_connections_and_one_that_closes_answers_what_is_in_flight() {
    let mut rig = Rig::start(Policy::Hold, 100);
    let (mut kept, mut other) = (connect(rig.otlp), connect(rig.bulk));
    let export = |stream: &mut TcpStream, rig: &Rig, name_bytes| {
        let pushed = rig.outlet.blocks().len();
        send(stream, "POST", "/v1/traces", &[PROTOBUF], &request(vec![span(1, name_bytes)]));
        while rig.outlet.blocks().len() == pushed {
            std::thread::yield_now();
        }
    };
    export(&mut kept, &rig, 10);
    let small = HttpLimits { max_body_bytes: 1000, ..limits() };
    let door = rig.otlp_door(small);
    let before = std::mem::replace(&mut rig.otlp, door.socket.local_addr().unwrap());
    rig.change(Vec::new(), vec![door]);
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut kept).unwrap().status, 200, "in flight while the door changed");
    assert!(TcpStream::connect(before).is_err(), "the old socket is closed");
    assert_eq!(rig.traces(&request(vec![span(1, 2000)])).status, 413, "new connections have the new limits");
    export(&mut kept, &rig, 2000);
    rig.change(vec![0], Vec::new());
    assert!(TcpStream::connect(rig.otlp).is_err());
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut kept).unwrap().status, 200, "of a connection that is older than the limit");
    assert!(read_reply(&mut kept).is_none(), "closed after it");
    send(&mut other, "GET", "/", &[], &[]);
    assert_eq!(read_reply(&mut other).unwrap().status, 200, "the other door is untouched");

    let door = rig.otlp_door(limits());
    rig.otlp = door.socket.local_addr().unwrap();
    rig.change(Vec::new(), vec![door]);
    let mut back = connect(rig.otlp);
    export(&mut back, &rig, 10);
    rig.outlet.answer_all(VerdictOutcome::Durable);
    assert_eq!(read_reply(&mut back).unwrap().status, 200);
    assert_eq!(rig.fronts[0].spans_passed.get(), 3, "one front, whatever the door");
}
