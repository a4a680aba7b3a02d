//! Sagas beside what else goes on: processes that are configured otherwise.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_consistency::saga::{Action, Config, Definition, Sagas, Status, Step};
use quorate_foundations::name::Name;
use serde_json::Value;

use super::{run, stores};

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn processes_that_differ_in_how_soon_they_take_over_leave_each_others_sagas_alone() {
    const EACH: usize = 4;
    run(async {
        let Some(stores) = stores(2).await else { return };
        let asked = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
        let (name, mut all) = (Name::new("order").unwrap(), Vec::new());
        // The second one takes the first for gone between two signs, if it judges by itself alone.
        for (store, takeover) in stores.iter().zip([Duration::from_secs(20), Duration::from_millis(500)]) {
            let (asked, env) = (asked.clone(), store.env().clone());
            let step = Action::remote(move |call| {
                let (asked, env) = (asked.clone(), env.clone());
                async move {
                    *asked.lock().unwrap().entry(call.id.to_string()).or_default() += 1;
                    env.sleep(Duration::from_secs(3)).await;
                    Ok(Value::Null)
                }
            });
            let sagas = Sagas::open(store, Config { takeover, ..Config::default() }).await.unwrap();
            sagas.define(Definition::new(name.clone(), 1).step(Step::new("only", step))).await.unwrap();
            all.push(sagas);
        }
        let ids: Vec<String> = (0..2 * EACH).map(|n| n.to_string()).collect();
        for (n, id) in ids.iter().enumerate() {
            all[n % 2].start(&name, id, (), None).await.unwrap();
        }
        for id in &ids {
            let ended = all[0].settled(&name, id, PATIENCE).await.unwrap().journal;
            assert_eq!(ended.status(), Status::Completed, "{ended:?}");
        }
        let once = ids.into_iter().map(|id| (id, 1)).collect();
        assert_eq!(*asked.lock().unwrap(), once, "nobody died, and nothing was asked for twice");
    });
}
