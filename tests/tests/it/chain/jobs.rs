//! What services of the chain do outside of any request.

use std::time::Duration;

use anyhow::ensure;
use gray_tests::{Kind, eventually};

use super::{ALL, BASE_WAY, Chain, GRAY_WAY};

/// B goes on by a task that does not know the request: the call is made in B's own lane, and B counts it.
async fn a_lost_context_is_counted(kind: Kind) -> anyhow::Result<()> {
    let copies: Vec<_> =
        ALL.into_iter().filter(|copy| copy.0 != "b").chain([("c", "V1")]).collect();
    let mut chain = Chain::start(kind, &copies).await?;
    chain.run("b", "V1", &["--lose-context"])?;
    eventually(Duration::from_secs(30), async || {
        let text = chain.get("/A/http", true).await?;
        // B has no gray copy, so base's own lane it is from there on.
        ensure!(text == "Agray[127.0.0.1] -> B[127.0.0.1] -> C[127.0.0.1]\n", "{text}");
        Ok(())
    })
    .await?;
    let own = "lane_own_total{from=\"spring-cloud-b\",to=\"spring-cloud-c\",lane=\"PROD\"}";
    let before = chain.counter(("b", "V1"), own).await?;
    for _ in 0..10 {
        chain.get("/A/http", true).await?;
    }
    let counted = chain.counter(("b", "V1"), own).await? - before;
    ensure!(counted == 10, "{counted} calls of its own accord are counted");
    Ok(())
}

/// What a copy does of its own accord is done in its own lane.
async fn jobs_stay_in_the_lane_of_their_copy(kind: Kind) -> anyhow::Result<()> {
    let copies: Vec<_> = ALL.into_iter().filter(|copy| copy.0 != "a").collect();
    let mut chain = Chain::start(kind, &copies).await?;
    for (version, expected) in [("V1", BASE_WAY), ("V2", GRAY_WAY)] {
        chain.run("a", version, &["--job", "1"])?;
        chain.until_job(("a", version), &[expected.trim_end()])?;
    }
    // A lane that is said, and not known by the version.
    chain.run("a", "V9", &["--job", "1", "--lane", "gray"])?;
    chain.until_job(("a", "V9"), &[GRAY_WAY.trim_end()])?;
    Ok(())
}

/// Every service of the demos has a job, and may go on by either transport.
async fn every_service_works_of_its_own_accord(kind: Kind) -> anyhow::Result<()> {
    let mut chain = Chain::start(kind, &[]).await?;
    let over_grpc = ["--job", "1", "--transport", "grpc"];
    for version in ["V1", "V2"] {
        for role in ["user", "order", "c"] {
            chain.run(role, version, &["--job", "1"])?;
        }
        for role in ["b", "a"] {
            chain.run(role, version, &over_grpc)?;
        }
    }
    for (version, lane, mark) in [("V1", "PROD", ""), ("V2", "GRAY", "gray")] {
        let served = [format!("\"lane\":\"{lane}\""), format!("\"version\":\"{version}\"")];
        for role in ["user", "order"] {
            chain.until_job((role, version), &[&served[0], &served[1]])?;
        }
        let name = |letter: char| format!("{letter}{mark}[127.0.0.1]");
        chain.until_job(("c", version), &[&format!("{} -> {}", name('C'), name('C'))])?;
        chain.until_job(("b", version), &[&format!("{} -> {}", name('B'), name('C'))])?;
    }
    eventually(Duration::from_secs(20), async || {
        for (gray, expected) in [(false, BASE_WAY), (true, GRAY_WAY)] {
            let way = chain.get("/A/go", gray).await?;
            ensure!(way == expected, "{way}");
        }
        Ok(())
    })
    .await
}

mod on_rnacos {
    use super::*;

    #[tokio::test]
    async fn a_lost_context_is_counted() -> anyhow::Result<()> {
        super::a_lost_context_is_counted(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn jobs_stay_in_the_lane_of_their_copy() -> anyhow::Result<()> {
        super::jobs_stay_in_the_lane_of_their_copy(Kind::Rnacos).await
    }

    #[tokio::test]
    async fn every_service_works_of_its_own_accord() -> anyhow::Result<()> {
        super::every_service_works_of_its_own_accord(Kind::Rnacos).await
    }
}

mod on_nacos {
    use super::*;

    #[tokio::test]
    async fn a_lost_context_is_counted() -> anyhow::Result<()> {
        super::a_lost_context_is_counted(Kind::Java).await
    }

    #[tokio::test]
    async fn jobs_stay_in_the_lane_of_their_copy() -> anyhow::Result<()> {
        super::jobs_stay_in_the_lane_of_their_copy(Kind::Java).await
    }
    #[tokio::test]
    async fn every_service_works_of_its_own_accord() -> anyhow::Result<()> {
        super::every_service_works_of_its_own_accord(Kind::Java).await
    }
}
