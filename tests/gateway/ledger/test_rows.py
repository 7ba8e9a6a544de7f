from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from gateway.evidence import Cause
from gateway.ledger.database import migrate, open_engine
from gateway.ledger.record import DecisionRecord, Rescan, ScoredBy, Timings
from gateway.ledger.rows import record_of, row_of
from gateway.ledger.tables import decisions
from imagesafety.policy import Action, Mode
from imagesafety.scores import View
from tests.gateway.ledger.records import a_record
from tests.gateway.ledger.test_packing import HASHES, VIEWS

INT32 = st.integers(0, 2**31 - 1)
INT64 = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
MILLISECONDS = st.floats(0, 1e9)
IDS = st.text("0123456789abcdef", min_size=32, max_size=32)


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


RECORDS = st.builds(
    DecisionRecord,
    id=IDS,
    at=INT64,
    client=TEXT,
    client_mode=st.sampled_from(Mode),
    sha256=optional(st.binary(min_size=32, max_size=32)),
    size=INT64,
    media_type=TEXT,
    decision=st.sampled_from(["accept", "reject"]),
    cause=st.sampled_from([cause.value for cause in Cause]),
    message=TEXT,
    timings=st.builds(
        Timings,
        total=MILLISECONDS,
        upload=optional(MILLISECONDS),
        score=optional(MILLISECONDS),
        decode=optional(MILLISECONDS),
        encode=optional(MILLISECONDS),
    ),
    scored_by=st.builds(
        ScoredBy, policy_digest=TEXT, concepts_digest=TEXT, model=TEXT, weights_digest=TEXT
    ),
    backend=TEXT,
    rule=optional(TEXT),
    flagged=st.booleans(),
    shadow=optional(st.sampled_from(Action)),
    shadow_rule=optional(TEXT),
    unscanned=st.booleans(),
    rescan=optional(st.sampled_from(Rescan)),
    override=optional(IDS),
    repeat_of=optional(IDS),
    rescan_of=optional(IDS),
    reference=optional(TEXT),
    user_agent=optional(TEXT),
    found_type=TEXT,
    width=INT32,
    height=INT32,
    frames=INT32,
    total_frames=INT32,
    partial=TEXT,
    deciding_view=optional(INT32),
    views=st.lists(VIEWS, max_size=5).map(tuple),
    perceptual_hashes=st.lists(HASHES, max_size=5).map(tuple),
)


@given(RECORDS)
def test_a_record_comes_back_from_its_row(record: DecisionRecord) -> None:
    assert record_of(row_of(record)) == record


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(record=RECORDS)
def test_a_record_comes_back_from_the_database(url: str, record: DecisionRecord) -> None:
    engine = open_engine(url)
    migrate(engine)
    with engine.connect() as connection:
        connection.execute(insert(decisions).values(row_of(record)))
        statement = select(decisions).where(decisions.c.id == record.id)
        assert record_of(connection.execute(statement).one()) == record
        connection.rollback()
    engine.dispose()


def test_every_column_has_a_value() -> None:
    assert set(row_of(a_record())) == {column.name for column in decisions.columns} - {"seq"}


def test_what_a_database_would_refuse_is_mended(url: str) -> None:
    record = a_record(
        message="a\0b\ud800c",
        found_type="x" * 1000,
        size=2**70,
        width=-(2**40),
        timings=Timings(float("nan"), float("inf")),
        views=(View(-1, 0.0, (0, 0, 1, 1), (0.5,)),),
    )
    engine = open_engine(url)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(insert(decisions).values(row_of(record)))
        found = record_of(connection.execute(select(decisions)).one())
    engine.dispose()
    assert found.id == record.id
    assert (found.message, len(found.found_type)) == ("a�b?c", 32)
    assert (found.size, found.width) == (2**63 - 1, -(2**31 - 1))
    assert found.timings == Timings(0.0)
    assert found.views == ()
