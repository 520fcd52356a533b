"""The vLLM engine: requests for one reply each through its asynchronous interface.

vLLM shares common prefixes of requests, does continuous batching and samples; this module only starts it, and
interprets its outputs and failures. Written for the interface of vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import SamplingSpec, VllmEngine
from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.engines.load import model_config
from tunesmith.engines.reply_text import Endings
from tunesmith.engines.temporary import TemporaryFolder
from tunesmith.engines.vllm.process import kill_cores, memory_cause, raised
from tunesmith.engines.vllm.settings import refuse_other_model
from tunesmith.engines.vllm.start import ENDED, VllmProcesses, first_words, log_text, start_vllm
from tunesmith.errors import MemoryShortError, ModelError, StoppedError, TemporaryError
from tunesmith.names import Reason
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
FIRST_ROWS = 256
"""Requests that vLLM computes at once unless told otherwise; on large GPUs some more."""
LEAST_TEMPERATURE = 0.01
"""vLLM samples with no lower temperature than this, except 0; for a lower one it warns once per request."""


async def open_vllm(
    files: ModelFiles,
    model: ModelSource,
    tokenizer: ChatTokenizer,
    settings: VllmEngine,
    sampling: SamplingSpec,
    *,
    seed: int,
    rows: int | None = None,
) -> VllmReplies:
    """Start vLLM with a model and its adapters; takes half a minute to several minutes.

    It computes at most `rows` requests at once. If memory runs out while it starts, it starts again with a
    quarter of them, down to one.

    Cancelling the awaiting task aborts the start. Raises ModelError if vLLM cannot run with the files,
    settings and memory, PermanentError if vLLM is not installed, and TemporaryError if its process died.
    """
    refuse_other_model(files.base, model_config(files.base))
    while True:
        try:
            return await _open(files, model, tokenizer, settings, sampling, seed, rows)
        except MemoryShortError as error:
            if rows == 1:
                raise ModelError(error.message, reason=Reason.OUT_OF_MEMORY) from error
            rows = max(1, (rows or FIRST_ROWS) // 4)
            log.warning("%s vLLM starts again, with at most %d requests at once.", error.message, rows)


async def _open(
    files: ModelFiles,
    model: ModelSource,
    tokenizer: ChatTokenizer,
    settings: VllmEngine,
    sampling: SamplingSpec,
    seed: int,
    rows: int | None,
) -> VllmReplies:
    # The thread that starts vLLM's processes must live as long as they do (see `process`).
    thread = ThreadPoolExecutor(1, "vllm")
    folder = TemporaryFolder("tunesmith-vllm-")
    starting = asyncio.get_running_loop().run_in_executor(
        thread, lambda: start_vllm(files, model, settings, seed, folder.path, rows)
    )
    try:
        started = await asyncio.shield(starting)
        engine = VllmReplies(started, tokenizer, sampling, thread, folder)
        await engine.load_adapter()
    except BaseException:
        await _undo(starting, thread, folder)
        raise
    return engine


async def _undo(
    starting: asyncio.Future[VllmProcesses], thread: ThreadPoolExecutor, folder: TemporaryFolder
) -> None:
    """Clean up after a start that failed or was cancelled."""
    while not starting.done():
        kill_cores()  # which makes the start fail
        await asyncio.wait([starting], timeout=0.2)
    if starting.exception() is None:
        await asyncio.get_running_loop().run_in_executor(thread, starting.result().end)
    thread.shutdown()
    folder.remove()


class VllmReplies:
    """An engine over vLLM's client."""

    def __init__(
        self,
        started: VllmProcesses,
        tokenizer: ChatTokenizer,
        sampling: SamplingSpec,
        thread: ThreadPoolExecutor,
        folder: TemporaryFolder,
    ) -> None:
        self.heartbeat = Heartbeat()
        beat_with(started.client, self.heartbeat.beat)
        self._started, self._client, self._adapter = started, started.client, started.adapter
        self._thread, self._folder = thread, folder
        self.at_once = int(self._client.vllm_config.scheduler_config.max_num_seqs)
        self.longest = int(self._client.vllm_config.model_config.max_model_len)
        self._endings, self._stop_ids = Endings(tokenizer, sampling.stop_tokens), tokenizer.stop_ids
        self._longest_reply = sampling.max_new_tokens
        self._sampling = sampling_arguments(sampling, tokenizer.stop_ids)
        self._in_flight: set[str] = set()
        self._asked = 0
        self._closing = False
        self._died, self._died_short = "", False

    async def load_adapter(self) -> None:
        """Load the adapter now instead of with the first request. Raises ModelError."""
        await self._ask(self._client.get_supported_tasks())  # starts listening to its processes
        if self._adapter is not None:
            try:
                await self._ask(self._client.add_lora(self._adapter))
            except TemporaryError:
                raise
            except Exception as error:  # vLLM raises no narrower type
                raise ModelError(
                    f"vLLM cannot use the adapter: {first_words(error)}. Use another adapter, or "
                    "engine.transformers."
                ) from error

    async def _ask(self, question: Coroutine[Any, Any, Any]) -> None:
        """Wait for an answer of the engine process; vLLM itself would wait forever if the process dies."""
        from vllm.v1.engine.exceptions import EngineDeadError

        answer = asyncio.create_task(question)
        try:
            while not answer.done():
                await asyncio.wait([answer], timeout=0.5)
                if not answer.done() and self._client.errored:
                    raise self._death()
            answer.result()
        except EngineDeadError:
            raise self._death() from None
        finally:
            answer.cancel()

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Sample one reply. Raises TemporaryError if vLLM's process has died, StoppedError once closed."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.sampling_params import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        if self._closing:
            raise self._death()
        prompt, name = list(request.prompt), f"{request.group}/{request.index}"
        most = self._longest_reply if request.max_tokens is None else request.max_tokens
        tokens = min(most, self.longest - len(prompt))
        seed = None if request.seed is None else request.seed % 2**63
        self._in_flight.add(name)
        try:
            settings = SamplingParams(**self._settings(request), max_tokens=tokens, seed=seed)
            outputs = self._client.generate(tokens_input(prompt), settings, name, lora_request=self._adapter)
            with self.heartbeat.asked():
                finals = [output async for output in outputs]
        except VLLMClientError as error:
            raise ModelError(f"vLLM rejects the prompt {request.group}: {first_words(error)}.") from error
        except (EngineDeadError, EngineGenerateError) as error:
            raise self._death() from error
        finally:
            self._in_flight.discard(name)
        return self._reply(finals[-1].outputs[0], request)

    async def next_tokens(self, ids: Sequence[int], start: int) -> list[int]:
        """Return the most likely token after each proper prefix of `ids` with at least `start` tokens.

        Raises TemporaryError if vLLM's process has died.
        """
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        settings = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._asked += 1
        name = f"next-{self._asked}"
        try:
            outputs = self._client.generate(
                tokens_input(list(ids)), settings, name, lora_request=self._adapter
            )
            finals = [output async for output in outputs]
        except (EngineDeadError, EngineGenerateError) as error:
            raise self._death() from error
        return [min(row, key=lambda token: row[token].rank) for row in finals[-1].prompt_logprobs[start:]]

    def _settings(self, request: GenerationRequest) -> dict[str, Any]:
        if request.temperature is None:
            return self._sampling
        return {**self._sampling, "temperature": _temperature(request.temperature)}

    def _reply(self, drawn: Any, request: GenerationRequest) -> GeneratedReply:
        if drawn.finish_reason in ("stop", "length"):
            ids = list(drawn.token_ids)
            spoken = ids[:-1] if ids[-1] in self._stop_ids else ids
            # vLLM truncates the text at a stop text; every other end is one of the tokens.
            text = drawn.text if isinstance(drawn.stop_reason, str) else self._endings.text(spoken)
            return GeneratedReply(text, len(ids), drawn.finish_reason)
        if drawn.finish_reason == "abort":  # not requested here: the process is being stopped
            raise self._death()
        raise TemporaryError(
            f"vLLM aborted reply {request.index} to the prompt {request.group}: {drawn.finish_reason}.",
            reason=Reason.PROCESS_DIED,
        )

    def _death(self) -> TemporaryError:
        if self._closing:
            return StoppedError("The engine is closed.")
        if not self._died:
            said = log_text(self._folder.path)
            log.error("vLLM's process has died. Its output:\n%s", said or "(nothing)")
            memory = memory_cause(said)
            cause = memory or raised(said)
            self._died = f"vLLM's process has died: {cause}" if cause else "vLLM's process has died" + ENDED
            self._died_short = memory is not None
        if self._died_short:
            return MemoryShortError(self._died)
        return TemporaryError(self._died, reason=Reason.PROCESS_DIED)

    async def close(self) -> None:
        """Stop vLLM's processes, within some seconds. May be called again."""
        if self._closing:
            return
        self._closing = True
        await self._client.abort(list(self._in_flight))  # otherwise some might wait forever
        await asyncio.get_running_loop().run_in_executor(self._thread, self._started.end)
        del self._client
        self._thread.shutdown()
        await asyncio.to_thread(self._folder.remove)


def beat_with(client: Any, beat: Callable[[], None]) -> None:
    """Call `beat` whenever tokens come from vLLM's process; a reply is returned only when it is complete."""
    processor = client.output_processor
    process = processor.process_outputs

    def process_outputs(outputs: Any, *arguments: Any, **options: Any) -> Any:
        if outputs:
            beat()
        return process(outputs, *arguments, **options)

    processor.process_outputs = process_outputs


def _temperature(wanted: float) -> float:
    return max(wanted, LEAST_TEMPERATURE) if wanted else 0.0


def sampling_arguments(sampling: SamplingSpec, stop_ids: Sequence[int] | frozenset[int]) -> dict[str, Any]:
    """Return the parameters common to all requests, by the names of vLLM's SamplingParams."""
    from vllm.sampling_params import RequestOutputKind

    return {
        "temperature": _temperature(sampling.temperature),
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or 0,
        "stop": list(sampling.stop_tokens),
        "detokenize": bool(sampling.stop_tokens),  # once per reply is cheaper than once per token
        "stop_token_ids": sorted(stop_ids),
        "ignore_eos": True,  # EOS is one of the ids, unless the tokenizer's differs from the model's
        "output_kind": RequestOutputKind.FINAL_ONLY,
        "skip_clone": True,  # each is created for one request
    }
