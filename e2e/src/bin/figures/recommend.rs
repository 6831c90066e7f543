//! Users to items: the server beside the same crates in one loop, and beside a Python service, in one run.
use crate::{
    beside::{Connection, Peer, ROUNDS, Way, at_rate, median, percentile, together, write_lines},
    start_with,
};
use anyhow::Context as _;
use std::{fs, path::Path};
use xebec_e2e::{generate::root, pipeline::Recommendation, server::binary};

const EXAMPLE: &str = "examples/recommendation";

/// Clients of the server and of the service: enough that neither waits for them.
const CLIENTS: usize = 8;

impl Way for Recommendation {
    fn ask(&mut self, user: &[u8]) -> anyhow::Result<()> {
        let user = user.first_chunk().context("a user is a number of eight bytes")?;
        self.recommend(i64::from_le_bytes(*user)).map(drop)
    }
}

/// A client of the Python service, which takes JSON.
struct Json(Connection);

impl Way for Json {
    fn ask(&mut self, user: &[u8]) -> anyhow::Result<()> {
        let user = i64::from_le_bytes(*user.first_chunk().context("a user is a number of eight bytes")?);
        let body =
            format!(r#"{{"inputs":[{{"name":"user","shape":[1],"datatype":"INT64","data":[{user}]}}]}}"#);
        self.0.ask(body.as_bytes())
    }
}

/// Every user of the example, as its table has them.
fn users() -> anyhow::Result<Vec<i64>> {
    let path = root().join(EXAMPLE).join("tables/user_keys.npy");
    let file = fs::read(&path).with_context(|| format!("{}: run `make tables`", path.display()))?;
    let numbers = file.get(128..).context("the table of users is cut")?;
    Ok(numbers.chunks_exact(8).filter_map(|user| Some(i64::from_le_bytes(*user.first_chunk()?))).collect())
}

/// Writes what the loop recommends to every user of a file of lines of JSON with `user`, for the judge of the example.
pub(super) fn predict(asked: &Path, out: &Path) -> anyhow::Result<()> {
    let mut recommendation = Recommendation::open()?;
    let text = fs::read_to_string(asked).with_context(|| format!("cannot read {}", asked.display()))?;
    let answer = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let user = line["user"].as_i64().context("a line has no user")?;
        Ok(recommendation.recommend(user)?.line(user))
    };
    write_lines(out, &text.lines().map(answer).collect::<anyhow::Result<Vec<_>>>()?)
}

/// Prints the table.
pub(super) fn cost(count: usize) -> anyhow::Result<()> {
    let all = users()?;
    // Neighbours in the table are no neighbours here.
    let step = (all.len() / count.max(1)).max(1);
    let asked: Vec<Vec<u8>> =
        all.iter().step_by(step).take(count).map(|user| user.to_le_bytes().to_vec()).collect();
    let server = start_with(&binary()?, &["up", EXAMPLE], "0,1")?;
    let peer = Peer::start("peer-recommendation", EXAMPLE, "0,1")?;
    let path = "/v2/models/recommend/infer";
    let alone = || -> anyhow::Result<Box<dyn Way>> { Ok(Box::new(Recommendation::open()?)) };
    let xebec = || -> anyhow::Result<Box<dyn Way>> {
        let headers = "Inference-Header-Content-Length: 0\r\n";
        Ok(Box::new(Connection::open(server.http, path, headers)?))
    };
    let python = || -> anyhow::Result<Box<dyn Way>> {
        let connection = Connection::open(peer.address, path, "Content-Type: application/json\r\n")?;
        Ok(Box::new(Json(connection)))
    };
    let first = asked.first().context("there is no user")?;
    peer.wait(|| python()?.ask(first))?;
    let many = |way: &dyn Fn() -> anyhow::Result<Box<dyn Way>>, count: usize| {
        (0..count).map(|_| way()).collect::<anyhow::Result<Vec<_>>>()
    };
    let mut ways = [many(&alone, 2)?, many(&xebec, CLIENTS)?, many(&python, CLIENTS)?];
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        for (ways, rates) in ways.iter_mut().zip(&mut rates) {
            // Each asks for its share.
            let share = &asked[..asked.len() / ways.len()];
            let rate = together(ways, share)?;
            // The first round warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let [own, served, theirs] = rates.map(|all| median(&all));
    let tail = |ways: &mut [Box<dyn Way>], capacity: f64| -> anyhow::Result<[f64; 2]> {
        let took = at_rate(ways, &asked, capacity * 0.7)?;
        Ok([percentile(&took, 0.5), percentile(&took, 0.99)])
    };
    let [served_p50, served_p99] = tail(&mut ways[1], served)?;
    let [theirs_p50, theirs_p99] = tail(&mut ways[2], theirs)?;
    println!(
        "| user to ten items of 100,000, two cores | users/s | of the loop's | p50 us at 70 % | p99 us at 70 % |"
    );
    println!("|---|---|---|---|---|");
    println!("| the same crates in two loops | {own:.0} | 1.00 | - | - |");
    println!(
        "| xebec over REST (wanted: at least 0.80) | {served:.0} | {:.2} | {served_p50:.0} | {served_p99:.0} |",
        served / own
    );
    println!(
        "| Python: FastAPI, onnxruntime, NumPy | {theirs:.0} | {:.2} | {theirs_p50:.0} | {theirs_p99:.0} |",
        theirs / own
    );
    println!("\nxebec answers {:.2} times as many users as the Python service", served / theirs);
    Ok(())
}
