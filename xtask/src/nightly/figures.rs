//! What a night came to: faults carried out by kind and rare states reached, in one file for programs and one table for people.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    fs, io,
    path::Path,
};

use serde_json::{Value, json};

/// Counts by name.
type Counts = BTreeMap<String, u64>;

/// The figures of a night, as far as it has come.
pub(super) struct Figures {
    night: u64,
    commit: String,
    campaigns: Vec<Campaign>,
    /// What else a night does, and whether it passed.
    steps: Vec<(String, bool)>,
    complete: bool,
}

/// Seeds of one scenario in worlds of one kind.
struct Campaign {
    scenario: String,
    /// The arguments that made its worlds.
    worlds: String,
    passed: bool,
    /// What it printed for programs; null where it printed nothing that could be read.
    told: Value,
}

impl Campaign {
    fn count(&self, key: &str) -> u64 {
        self.told[key].as_u64().unwrap_or(0)
    }

    fn document(&self) -> Value {
        json!({ "scenario": self.scenario, "worlds": self.worlds, "passed": self.passed, "told": self.told })
    }
}

impl Figures {
    /// Nothing yet, of the night with this number and this commit.
    pub(super) fn of(night: u64, commit: &str) -> Self {
        Self { night, commit: commit.to_owned(), campaigns: Vec::new(), steps: Vec::new(), complete: false }
    }

    /// Adds a campaign, which printed `told` for programs. One that printed nothing readable has not passed, whatever it ended with.
    pub(super) fn add(&mut self, scenario: &str, worlds: &[&str], passed: bool, told: &[u8]) {
        let told: Value = serde_json::from_slice(told).unwrap_or_default();
        let (scenario, worlds) = (scenario.to_owned(), worlds.join(" "));
        self.campaigns.push(Campaign { scenario, worlds, passed: passed && told.is_object(), told });
    }

    /// Adds something else that a night does.
    pub(super) fn step(&mut self, name: &str, passed: bool) {
        self.steps.push((name.to_owned(), passed));
    }

    /// The night has come to its end.
    pub(super) fn end(&mut self) {
        self.complete = true;
    }

    /// Whether everything so far passed.
    pub(super) fn passed(&self) -> bool {
        self.campaigns.iter().all(|campaign| campaign.passed) && self.steps.iter().all(|(_, passed)| *passed)
    }

    /// What the campaigns count under `key`, together.
    fn sums(&self, key: &str) -> Counts {
        let mut sums = Counts::new();
        for (what, count) in self.campaigns.iter().filter_map(|campaign| campaign.told[key].as_object()).flatten() {
            *sums.entry(what.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        sums
    }

    /// All of it, for programs.
    fn document(&self) -> Value {
        let total = |key: &str| self.campaigns.iter().map(|campaign| campaign.count(key)).sum::<u64>();
        let steps: Vec<Value> =
            self.steps.iter().map(|(name, passed)| json!({ "name": name, "passed": passed })).collect();
        json!({
            "night": self.night,
            "commit": self.commit,
            "complete": self.complete,
            "passed": self.passed(),
            "seeds": total("passed"),
            "simulatedMillis": total("simulatedMillis"),
            "injected": self.sums("injected"),
            "reached": self.sums("reached"),
            "examined": self.sums("examined"),
            "inSeeds": self.sums("inSeeds"),
            "campaigns": self.campaigns.iter().map(Campaign::document).collect::<Vec<_>>(),
            "steps": steps,
        })
    }

    /// Writes all of it to `file`. A night that dies meanwhile leaves the figures as they were before, or as they are.
    ///
    /// # Errors
    /// When the file or its folder cannot be written.
    pub(super) fn keep(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let unfinished = file.with_extension("unfinished");
        fs::write(&unfinished, format!("{:#}\n", self.document()))?;
        fs::rename(unfinished, file)
    }
}

/// The table that a night closes with.
impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9}  {:>9}  {:<6}  CAMPAIGN", "SEEDS", "PER HOUR", "PASSED")?;
        for campaign in &self.campaigns {
            let per_hour = campaign.told["seedsPerHourAndCore"].as_f64().unwrap_or(0.0);
            let (seeds, passed) = (campaign.count("passed"), if campaign.passed { "yes" } else { "NO" });
            writeln!(f, "{seeds:>9}  {per_hour:>9.0}  {passed:<6}  {} {}", campaign.scenario, campaign.worlds)?;
        }
        let seeds = self.sums("inSeeds");
        for (title, key) in [("FAULT CARRIED OUT", "injected"), ("RARE STATE REACHED", "reached")] {
            writeln!(f, "\n{:>12}  {:>9}  {title}", "TIMES", "IN SEEDS")?;
            for (what, count) in self.sums(key) {
                writeln!(f, "{count:>12}  {:>9}  {what}", seeds.get(&what).copied().unwrap_or(0))?;
            }
        }
        self.steps.iter().filter(|(_, passed)| !passed).try_for_each(|(name, _)| writeln!(f, "\nFAILED: {name}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    fn figures() -> Figures {
        let mut figures = Figures::of(20_788, "c0ffee");
        let appends = json!({
            "passed": 5_000, "simulatedMillis": 70_000, "seedsPerHourAndCore": 5_917.4,
            "injected": { "network: reset": 62, "process: killed": 48 }, "reached": { "store: the disk was full": 484 },
            "inSeeds": { "network: reset": 31, "process: killed": 20, "store: the disk was full": 9 },
        });
        let keys = json!({ "passed": 100, "injected": { "network: reset": 58 }, "inSeeds": { "network: reset": 30 } });
        figures.add("appends", &["--for", "10m"], true, appends.to_string().as_bytes());
        figures.add("keys", &["--time", "60s"], true, keys.to_string().as_bytes());
        figures.step("checkouts", true);
        figures
    }

    #[test]
    fn a_night_keeps_faults_by_kind_and_states_of_all_its_campaigns_in_one_file() {
        let folder = env::temp_dir().join(format!("quorate-figures-{}", process::id()));
        let (mut figures, file) = (figures(), folder.join("nightly/20788.json"));
        let read = || -> Value { serde_json::from_slice(&fs::read(&file).unwrap()).unwrap() };
        figures.keep(&file).unwrap();
        assert_eq!(read()["complete"], false, "a night that dies says that there is more of it");
        figures.end();
        figures.keep(&file).unwrap();
        let kept = read();
        assert_eq!(kept["injected"], json!({ "network: reset": 120, "process: killed": 48 }));
        assert_eq!(kept["reached"], json!({ "store: the disk was full": 484 }));
        assert_eq!(kept["inSeeds"]["network: reset"], 61);
        assert_eq!((&kept["seeds"], &kept["simulatedMillis"]), (&5_100.into(), &70_000.into()));
        assert_eq!(
            (&kept["complete"], &kept["passed"], &kept["commit"]),
            (&true.into(), &true.into(), &"c0ffee".into())
        );
        assert_eq!(kept["campaigns"][1]["worlds"], "--time 60s");
        assert_eq!(kept["campaigns"][0]["told"]["injected"]["process: killed"], 48);
        assert_eq!(fs::read_dir(folder.join("nightly")).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_closing_table_has_each_fault_and_state_with_how_often_and_in_how_many_seeds() {
        let table = figures().to_string();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        for row in [
            &["5000", "5917", "yes", "appends", "--for", "10m"][..],
            &["120", "61", "network:", "reset"],
            &["48", "20", "process:", "killed"],
            &["484", "9", "store:", "the", "disk", "was", "full"],
        ] {
            assert!(rows.iter().any(|known| known == row), "{row:?} is not in\n{table}");
        }
    }

    #[test]
    fn a_campaign_or_a_step_that_failed_or_said_nothing_fails_the_night() {
        assert!(figures().passed());
        for (passed, told) in [(false, "{}"), (true, ""), (true, "thread panicked")] {
            let mut figures = figures();
            figures.add("views", &[], passed, told.as_bytes());
            assert!(!figures.passed() && figures.to_string().contains("NO      views"), "{figures}");
        }
        let mut figures = figures();
        figures.step("storm", false);
        assert!(!figures.passed() && figures.to_string().contains("FAILED: storm"), "{figures}");
    }
}
