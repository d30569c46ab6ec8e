"""What the database says when something is wrong with it."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from worker.database import Database, database_problem


def test_an_error_quotes_no_finding(any_database: Database) -> None:
    with pytest.raises(SQLAlchemyError) as raised, any_database.writing() as session:
        session.execute(text("UPDATE no_such_table SET probability = :p"), {"p": 0.8765})
    assert "no_such_table" in str(raised.value)
    assert "8765" not in str(raised.value) + database_problem(raised.value)
