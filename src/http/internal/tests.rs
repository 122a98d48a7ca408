use super::*;
use crate::{
    config::{ClusterConfig, EnvelopeKey, RoutingConfig},
    topology::{
        probe::{Asker, Connect, peer_client},
        seal::Sealer,
    },
    vocab::{Epoch, Op, OpKind, Region},
};
use actix_web::{App, HttpServer, web};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

const SOON: Duration = Duration::from_secs(10);

fn sealer() -> Sealer {
    let key = EnvelopeKey { secret: "0123456789abcdef0123456789abcdef".into() };
    Sealer::new(&ClusterConfig {
        envelope_keys: [("test".to_owned(), key)].into(),
        envelope_key_current: "test".to_owned(),
        peer_tls: None,
    })
}

/// Which connection a request came over: each leads to a process of its own.
struct Connection(usize);

/// The first process has yet to start, the second is about to end, and the third goes on.
async fn answer(request: HttpRequest, body: String) -> HttpResponse {
    let process = request.conn_data::<Connection>().map(|connection| connection.0).unwrap();
    if process == 0 {
        return HttpResponse::MisdirectedRequest().insert_header((probe::ENDING, "1")).finish();
    }
    let op = Op::system(OpKind::Test, SOON);
    let asked = Asked::open(&sealer(), &body, &region(), op.now()).unwrap();
    let answer = Answer::Failed { reason: process.to_string() };
    let answered = Signed { from: region(), id: asked.id, answer };
    let mut response = HttpResponse::Ok();
    if process == 1 {
        response.insert_header((probe::ENDING, "1"));
    }
    response.body(answered.seal(&sealer()))
}

fn region() -> Region {
    "eu-west-1".parse().unwrap()
}

#[actix_web::test]
async fn a_process_that_serves_nobody_is_left_for_another_and_one_that_ends_after_its_answer() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connections = Arc::new(AtomicUsize::new(0));
    let server =
        HttpServer::new(|| App::new().route(crate::topology::ask::PATH, web::post().to(answer)))
            .on_connect(move |_, data| {
                data.insert(Connection(connections.fetch_add(1, Ordering::Relaxed)));
            })
            .workers(1)
            .disable_signals()
            .bind_auto_h2c(("127.0.0.1", 0))
            .unwrap();
    let base = format!("http://{}", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    let asking = async {
        let connect: Connect = Arc::new(|| peer_client(&RoutingConfig::default(), None));
        let one = Asker::new(connect().unwrap(), sealer(), region(), &base);
        let any = one.clone().of_any(connect);
        let op = Op::system(OpKind::Test, SOON);
        let ask = async |asker: &Asker| {
            let answer = asker.ask(Question::Release { epoch: Epoch::FIRST }, SOON, &op).await;
            answer.map_err(|error| error.to_string())
        };
        let by = |process: &str| Ok(Answer::Failed { reason: process.to_owned() });
        // Who means that very process is told what it says.
        assert_eq!(ask(&one).await, Err("answered 421".to_owned()));
        assert_eq!(ask(&any).await, by("1"));
        assert_eq!(ask(&any).await, by("2"));
        assert_eq!(ask(&any).await, by("2"));
        handle.stop(false).await;
    };
    let ((), served) = tokio::join!(asking, server);
    served.unwrap();
}
