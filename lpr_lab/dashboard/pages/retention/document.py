"""One document of a test set, its tokens coloured by change in bits between the two models that are compared.

Runs keep no text of others. So the document is read from the corpus again, checked to be the one that was measured, and
traced by the model, which takes weights. What comes out is held in memory only, under an id that follows from the
document: the page Routing shows it by that id, with its causal map.
"""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lpr_lab.dashboard import shell
from lpr_lab.dashboard.pages.retention.causes import Causes
from lpr_lab.dashboard.query import Query
from lpr_lab.dashboard.server.models import MODELS, why_no_model
from lpr_lab.dashboard.server.unsaved_texts import UNSAVED
from lpr_lab.dashboard.shell import status
from lpr_lab.errors import ComparisonRefusedError, LprError, MissingError
from lpr_lab.runs.model_ref import BASE, ModelRef, why_no_routing
from lpr_lab.runs.run import Run
from lpr_lab.views.html.templates import render
from lpr_lab.views.html.tokens import StripChoices, render_token_strip

if TYPE_CHECKING:
    from lpr_lab.measure.trace import RoutingTrace

Step = tuple[str, Any]
"""A status line, and the tokens."""

_TEMPLATE = "dashboard/pages/retention/document.html.j2"


def text_id(causes: Causes, document: str) -> str:
    """Return the id under which a document is held; the same for whoever asks for it."""
    key = "\0".join((causes.dataset, causes.language, str(causes.row["test_set"]), document))
    return f"own-{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def trace_between(causes: Causes, document: str, before: ModelRef, after: ModelRef) -> "RoutingTrace | None":
    """Return the document as the model after reads it, beside the model before; None where it was not read yet.

    Its `base_log_prob` is that of the model before, whatever it is.
    """
    name = text_id(causes, document)
    new, old = UNSAVED.get(after.run, name), UNSAVED.get(before.run, name)
    if new is None or old is None:
        return None
    shown, was = new.trace.at(after.stage or new.trace.stage), old.trace
    if was.token_ids != shown.token_ids:
        raise ComparisonRefusedError("The two models cut this document into different tokens; compare them by slice.")
    bits = was.base_log_prob if before.stage == BASE else was.at(before.stage or was.stage).log_prob
    called = [before.title(after.run), after.title(after.run)]
    return replace(shown, base_log_prob=bits, stages={}, model={**shown.model, "compared": called})


def render_document(causes: Causes, before: ModelRef, after: ModelRef, query: Query) -> Markup:
    """Return the chosen document: its tokens where they were read, else nothing."""
    row = causes.document(query.doc)
    trace = None if row is None else trace_between(causes, str(row["document"]), before, after)
    if trace is None or row is None:
        return Markup("")
    table = token_table(trace)
    alone = 100 * (table["after"].sum() / table["before"].sum() - 1)
    name = text_id(causes, str(row["document"]))
    link = Query(run=after.run.id, text=name, lang=causes.language, stage=after.stage, view="gain")
    routing = "" if why_no_routing(after.run) else link.link("/routing")
    return render(
        _TEMPLATE,
        document=str(row["document"]),
        measured=row["change_percent"],
        alone=alone,
        names=trace.model["compared"],
        routing=routing,
        strip=render_token_strip(trace, StripChoices(colour="gain"), linked=False),
        tokens=table.reindex(table["change"].abs().sort_values(ascending=False).index)[:10].to_dict("records"),
    )


def token_table(trace: "RoutingTrace") -> Any:
    """Return one row per token of a document: token, before, after and change, in bits."""
    import numpy as np
    import pandas as pd

    assert trace.log_prob is not None and trace.base_log_prob is not None
    is_text = trace.is_text
    before, after = (-values[is_text] / np.log(2) for values in (trace.base_log_prob, trace.log_prob))
    tokens = [token for token, known in zip(trace.tokens, is_text, strict=True) if known]
    columns = {"position": np.flatnonzero(is_text), "token": tokens, "before": before, "after": after}
    return pd.DataFrame(columns | {"change": after - before})


def why_no_tokens(before: ModelRef, after: ModelRef) -> str:
    """Return why the tokens of a document cannot be read, in a sentence, or nothing."""
    return why_no_model(after.run) or why_no_model(before.run) or ""


def read_document(causes: Causes, before: ModelRef, after: ModelRef, query: Query) -> Iterator[Step]:
    """Read the chosen document with both models; yields as it gets on."""
    row = causes.document(query.doc)
    if row is None:
        yield status("Choose a document first.", bad=True), ""
        return
    try:
        if reason := why_no_tokens(before, after):
            raise MissingError(reason)
        yield status("Finding the document in the corpus…", busy=True), ""
        name, text = text_id(causes, str(row["document"])), ""
        for run in dict.fromkeys((after.run, before.run)):
            if UNSAVED.get(run, name) is not None:
                continue
            yield status(f"{'Reading' if MODELS.is_loaded(run) else 'Loading the model, then reading'}…", busy=True), ""
            with MODELS.use(run) as loaded:
                text = text or text_of(after.run, causes, str(row["document"]), loaded.tokenizer)
                UNSAVED.put(run, name, _traced(run, loaded, text, causes.language))
        shown = render_document(causes, before, after, query)
    except Exception as error:  # whatever it is, the page says so
        if not isinstance(error, LprError):
            logging.getLogger(__name__).exception("Reading a document with run %s failed.", after.run.id)
        said = str(error) if isinstance(error, LprError) else f"This failed ({type(error).__name__}: {error})."
        yield status(said, bad=True), ""
        return
    yield status("Done; nothing is saved."), shown


def text_of(run: Run, causes: Causes, document: str, tokenizer: Any) -> str:
    """Return the text of a measured document from the run's corpus."""
    from lpr_lab.experiments.studies.scoring import measured_text

    test_set = str(causes.row["test_set"])
    return measured_text(run.config, causes.dataset, causes.language, test_set, document, tokenizer)


def _traced(run: Run, loaded: Any, text: str, language: str) -> "RoutingTrace":
    from lpr_lab.measure.routing import trace, trace_stages, trace_unrouted

    if why_no_routing(run):
        return trace_unrouted(loaded.model, loaded.tokenizer, text, language)
    newest = trace(loaded.model, loaded.tokenizer, text, language, base=False)
    return trace_stages(loaded.model, loaded.tokenizer, newest)


def no_tokens(run: Run, reason: str) -> Markup:
    """Return why tokens cannot be coloured here, and where they can."""
    return shell.notice("info", shell.no_model(run, reason, "/retention", "Colouring tokens"))
