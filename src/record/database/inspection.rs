//! What a database is like, for whoever asks before a gateway uses it. Nothing stays changed.

use sqlx::Row;

use crate::record::database::{Database, DatabaseError, Kind, MIGRATIONS, Sql};

/// How its tables compare with those that this version wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// How many migrations have not been made.
    pub pending: usize,
    /// Those that were made otherwise than ours, or broke off, by their versions.
    pub foreign: Vec<i64>,
}

impl Database {
    /// Compares its tables with ours. Those of a later version are as well: migrations only add.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn tables(&self) -> Result<Tables, DatabaseError> {
        let known = match self.kind {
            Kind::Sqlite => {
                "SELECT COUNT(*) AS n FROM sqlite_master WHERE name = '_sqlx_migrations'"
            }
            Kind::Postgres => {
                "SELECT COUNT(*) AS n FROM pg_tables WHERE tablename = '_sqlx_migrations' \
                 AND schemaname = ANY (current_schemas(false))"
            }
        };
        let read = self.read(move |pool| async move {
            let found = Sql::new(known).read(&pool).await?;
            let is_new = found.first().is_none_or(|row| row.get::<i64, _>("n") == 0);
            if is_new {
                return Ok(Vec::new());
            }
            let made = "SELECT version, checksum, \
                        CAST(CASE WHEN success THEN 1 ELSE 0 END AS BIGINT) AS done \
                        FROM _sqlx_migrations";
            let made = Sql::new(made).read(&pool).await?;
            let read = made.iter().map(|row| {
                let done = row.try_get::<i64, _>("done")? == 1;
                let checksum: Vec<u8> = row.try_get("checksum")?;
                Ok((row.try_get::<i64, _>("version")?, done.then_some(checksum)))
            });
            read.collect::<Result<Vec<_>, sqlx::Error>>()
        });
        Ok(Tables::compare(&read.await?))
    }

    /// Has the database count its calls, by which it plans: PostgreSQL does so by itself some time
    /// after so many rows, SQLite is never told to.
    ///
    /// # Errors
    /// If it cannot be reached.
    #[cfg(any(test, feature = "bench"))]
    pub async fn count_calls(&self) -> Result<(), DatabaseError> {
        let count = self.write(|writing| {
            Box::pin(async move { Sql::new("ANALYZE calls").execute(writing).await })
        });
        count.await.map(drop)
    }

    /// Returns how the database goes about the statement that `ask` writes.
    ///
    /// # Errors
    /// If it cannot be reached.
    #[cfg(any(test, feature = "bench"))]
    pub async fn plan(&self, ask: impl FnOnce(Sql) -> Sql) -> Result<Vec<String>, DatabaseError> {
        let (explain, column) = match self.kind {
            Kind::Sqlite => ("EXPLAIN QUERY PLAN ", "detail"),
            Kind::Postgres => ("EXPLAIN ", "QUERY PLAN"),
        };
        let sql = ask(Sql::new(explain));
        let read = self.read(move |pool| async move {
            let rows = sql.read(&pool).await?;
            rows.iter().map(|row| row.try_get(column)).collect()
        });
        read.await
    }

    /// Returns the database's time, in Unix milliseconds.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn now(&self) -> Result<i64, DatabaseError> {
        let ask = format!("SELECT {} AS now", self.kind.clock());
        let read = self.read(move |pool| async move { Sql::new(&ask).read(&pool).await });
        let rows = read.await?;
        Ok(rows.first().map_or(0, |row| row.get("now")))
    }

    /// Tries whether it lets us write rows, and make tables if that is `wanted`.
    ///
    /// # Errors
    /// If it does not.
    pub async fn try_out(&self, wanted: bool) -> Result<(), DatabaseError> {
        let table = format!("callgate_check_{:016x}", rand::random::<u64>());
        let tried = self.write(move |writing| {
            Box::pin(async move {
                if wanted {
                    let make = format!("CREATE TABLE {table} (tried BIGINT)");
                    Sql::new(&make).execute(writing).await?;
                    Sql::new(&format!("DROP TABLE {table}"))
                        .execute(writing)
                        .await?;
                    return Ok(0);
                }
                // Rights are checked before rows are looked for, and there is no such row.
                let insert = "INSERT INTO steps SELECT * FROM steps WHERE 1 = 0";
                Sql::new(insert).execute(writing).await?;
                let update = "UPDATE calls SET call = call WHERE 1 = 0";
                Sql::new(update).execute(writing).await?;
                Sql::new("DELETE FROM calls WHERE 1 = 0")
                    .execute(writing)
                    .await
            })
        });
        tried.await.map(drop)
    }
}

impl Tables {
    /// Compares what was made, versions with their checksums if they were made to the end.
    fn compare(made: &[(i64, Option<Vec<u8>>)]) -> Self {
        let ours = || MIGRATIONS.iter();
        let is_ours = |version: i64, checksum: &Option<Vec<u8>>| {
            let wanted = ours().find(|migration| migration.version == version);
            match (wanted, checksum) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(wanted), Some(checksum)) => *wanted.checksum == **checksum,
            }
        };
        let is_made = |version| made.iter().any(|(made, _)| *made == version);
        let foreign = made.iter().filter(|(version, sum)| !is_ours(*version, sum));
        Self {
            pending: ours().filter(|it| !is_made(it.version)).count(),
            foreign: foreign.map(|(version, _)| *version).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_ours_or_pending_or_of_somebody_else() {
        let all: Vec<_> = MIGRATIONS
            .iter()
            .map(|migration| (migration.version, Some(migration.checksum.to_vec())))
            .collect();
        let (last, before) = all.split_last().unwrap();
        let later = [all.as_slice(), &[(9_999, Some(vec![1]))]].concat();
        let broken = [before, &[(last.0, None)]].concat();
        let other = [before, &[(last.0, Some(vec![1]))]].concat();
        for (made, pending, foreign) in [
            (Vec::new(), all.len(), vec![]),
            (before.to_vec(), 1, vec![]),
            (all.clone(), 0, vec![]),
            (later, 0, vec![]),
            (broken, 0, vec![last.0]),
            (other, 0, vec![last.0]),
        ] {
            assert_eq!(Tables::compare(&made), Tables { pending, foreign });
        }
    }
}
