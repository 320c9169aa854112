"""What a stage of preprocessing is."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar

from flow.progress import Progress
from som.errors import UserError
from som.preprocessing.config import PreprocessRun, StageName
from som.preprocessing.providers.base import Provider, Result
from som.preprocessing.providers.registry import Registry
from som.preprocessing.record import State
from som.preprocessing.workspace import Workspace

P = TypeVar("P", bound=Provider)


@dataclass
class Outcome:
    """How a stage ended."""

    method: str
    """What did it, in words."""
    state: State = "done"
    findings: dict[str, Any] = field(default_factory=dict)
    """Plain JSON."""
    warnings: list[str] = field(default_factory=list)
    """Sentences that a person should read."""


class Stage:
    """One step from a video to a data set folder: it reads what earlier ones left, and says what it found."""

    name: ClassVar[StageName]
    needs: ClassVar[tuple[StageName, ...]] = ()
    """The stages that it is made from, all of them before it."""
    settings: ClassVar[type | None] = None
    """Of ``PreprocessRun``'s field of the stage's name, where it has one."""
    leaves: ClassVar[tuple[str, ...]] = ()
    """Files and folders that it writes into the data set folder."""

    def covers(self, run: PreprocessRun) -> list[Any]:
        """What the result depends on besides the stages that it needs: options, files."""
        raise NotImplementedError

    def check(self, run: PreprocessRun) -> None:
        """Refuses, before any work is done, what cannot work.

        Raises:
            UserError: names the setting, what it must be and what it is.
        """

    def run(self, work: Workspace, progress: Progress) -> Outcome:
        """Does the work.

        Raises:
            UserError: why it cannot go on.
        """
        raise NotImplementedError

    def recall(self, work: Workspace) -> None:
        """Tells the workspace what an earlier run of the stage left, beyond the files."""


class ProvidedStage(Stage, Generic[P]):
    """A stage whose work one of several providers does."""

    registry: ClassVar[Registry]

    def provider_name(self, run: PreprocessRun) -> str:
        """The provider that the settings choose; giving files chooses ``given``."""
        settings = getattr(run, self.name)
        return "given" if settings.given is not None else settings.provider

    def provider(self, run: PreprocessRun) -> P:
        """That provider."""
        return self.registry.get(self.provider_name(run))

    def covers(self, run: PreprocessRun) -> list[Any]:
        provider = self.provider(run)
        chosen = [self.provider_name(run), provider if is_dataclass(provider) else None]
        return [getattr(run, self.name), self.name in run.skip, chosen]

    def check(self, run: PreprocessRun) -> None:
        settings = getattr(run, self.name)
        if settings.given is not None:
            self._check_given(settings.given, settings.provider, run.skip)
        elif settings.provider == "given":
            raise UserError(f"`{self.name}.provider` given needs `{self.name}.given`, the path of the files.")
        provider = self.provider(run)
        if self.name not in run.skip:
            self._check_options(settings, provider, self.provider_name(run))
            provider.check(settings)

    def _check_given(self, given: Any, provider: str, skip: tuple[str, ...]) -> None:
        path = f"`{self.name}.given`"
        if not given.exists():
            raise UserError(f"{path} {given}: does not exist.")
        if provider not in ("auto", "given"):
            raise UserError(
                f"{path} and `{self.name}.provider` {provider} contradict each other; leave one of them out."
            )
        if self.name in skip:
            raise UserError(f"`skip` {self.name} and {path} contradict each other; leave one of them out.")

    def _check_options(self, settings: Any, provider: P, name: str) -> None:
        """Refuses settings that the provider does not look at."""
        default = type(settings)()
        for option in fields(settings):
            changed = getattr(settings, option.name) != getattr(default, option.name)
            if not changed or option.name in ("provider", *provider.options):
                continue
            if option.name.startswith("given"):
                raise UserError(f"`{self.name}.{option.name}` has no effect without `{self.name}.given`.")
            raise UserError(
                f"`{self.name}.{option.name}` has no effect with the provider {name} of {self.name}; leave it out, or "
                "choose another provider."
            )

    def ask(self, work: Workspace, progress: Progress, *, settings: Any = None, **known: Any) -> Any:
        """The provider's result; ``known`` are the parts of the clip that the stage has."""
        run = work.run
        found: Result = self.provider(run).provide(
            work.clip(**known),
            settings or getattr(run, self.name),
            device=work.device,
            seed=run.seed,
            progress=progress,
        )
        found.method = found.method or self.provider_name(run)
        return found

    def expect(self, what: str, value: Any, shape: tuple[int | None, ...]) -> None:
        """Refuses what a provider of the wrong shape returned; None is any length.

        Raises:
            UserError: names the provider, what was expected and what it is.
        """
        found = tuple(value.shape)
        if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
            wanted = str(tuple("any" if n is None else n for n in shape)).replace("'", "")
            raise UserError(f"the provider of {self.name} returned {what} of shape {found}, expected {wanted}.")


def outcome_of(result: Result) -> Outcome:
    """How a stage ended whose provider returned this."""
    return Outcome(result.method, "given" if result.given else "done", dict(result.findings), list(result.warnings))
