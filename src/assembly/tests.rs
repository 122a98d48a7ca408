//! A region of several processes, of which a move of the primary must find one that serves.

use crate::{
    config::{ClusterConfig, EnvelopeKey, RoutingConfig},
    failover::{Cluster, plan::tests::all_well},
    topology::{
        TopologyReport,
        ask::{self, Answer, Answered, Asked},
        control::Outcome,
        probe::{self, ENDING, connecting},
        seal::Sealer,
    },
    vocab::{Op, OpKind, Region},
};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const SOON: Duration = Duration::from_secs(10);

/// Each leads to a process of its own.
struct Connection(usize);

/// The first two of a region's processes have yet to start.
fn starts(request: &HttpRequest) -> bool {
    request.conn_data::<Connection>().unwrap().0 < 2
}

fn sealer() -> Sealer {
    let key = EnvelopeKey { secret: "0123456789abcdef0123456789abcdef".into() };
    Sealer::new(&ClusterConfig {
        envelope_keys: [("test".to_owned(), key)].into(),
        envelope_key_current: "test".to_owned(),
        peer_tls: None,
    })
}

async fn report(request: HttpRequest) -> HttpResponse {
    let mut sight = all_well();
    let report = sight.seen("eu-west-1").report.clone().unwrap();
    HttpResponse::Ok().json(TopologyReport { starting: starts(&request), ..report })
}

async fn look(request: HttpRequest, body: String) -> HttpResponse {
    if starts(&request) {
        return HttpResponse::MisdirectedRequest().insert_header((ENDING, "1")).finish();
    }
    let op = Op::system(OpKind::Test, SOON);
    let from: Region = "eu-west-1".parse().unwrap();
    let asked = Asked::open(&sealer(), &body, &from, op.now()).unwrap();
    let instance = all_well().of("eu-west-1").clone();
    let answer = Answer::Order(Box::new(Outcome::Instance(Box::new(instance))));
    HttpResponse::Ok().body(Answered { from, id: asked.id, answer }.seal(&sealer()))
}

#[actix_web::test]
async fn of_a_regions_processes_one_that_serves_is_believed() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connections = Arc::new(AtomicUsize::new(0));
    let routes = || {
        let (reports, looks) = (web::get().to(report), web::post().to(look));
        App::new().route(probe::PATH, reports).route(ask::PATH, looks)
    };
    let server = HttpServer::new(routes)
        .on_connect(move |_, data| {
            data.insert(Connection(connections.fetch_add(1, Ordering::Relaxed)));
        })
        .workers(1)
        .disable_signals()
        .bind_auto_h2c(("127.0.0.1", 0))
        .unwrap();
    let region: Region = "eu-west-1".parse().unwrap();
    let listener = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    let asking = async {
        let connect = connecting(&RoutingConfig::default(), None);
        let cluster = Cluster::new(connect, sealer(), [(region.clone(), listener)]).unwrap();
        let op = Op::system(OpKind::Test, SOON);
        for _ in 0..2 {
            let sight = cluster.observe(&op).await;
            let seen = &sight.regions[&region];
            assert!(seen.report.as_ref().is_ok_and(|told| !told.starting), "{seen:?}");
            assert!(seen.instance.is_ok(), "{seen:?}");
        }
        handle.stop(false).await;
    };
    let ((), served) = tokio::join!(asking, server);
    served.unwrap();
}
