"""What recurrent networks can compute: everything (Siegelmann & Sontag, 1995)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from elman.studies import machines, pictures
from elman.studies.study import Outcome, Study
from elman.studies.turing_network import TuringNetwork
from elman.training.report import Report
from elman.training.settings import Settings, option


@dataclass
class TuringSettings(Settings):
    """The settings of the compiler of Turing machines."""

    machine: str = option(
        ",".join(machines.MACHINES), "Names, or a file with a machine's table; with commas between."
    )
    word: str | None = option(None, "What stands on the tape, the head on its first symbol.")
    limit: int = option(10_000, "Steps of the machine, at most.", least=0)
    weights: bool = option(False, "Print the network: an equation for each unit.")


class Turing(Study):
    """A Turing machine compiled to a recurrent network, run beside the machine itself."""

    name = "turing"
    subject = "Turing machines inside a network, step for step, exactly"
    source = "Siegelmann & Sontag, 1995"
    Settings = TuringSettings
    settings: TuringSettings

    def run(self, report: Report) -> Outcome:
        """Run every machine in its network, and compare each step with the machine's own."""
        rows, histories = [], {}
        for name in self.settings.machine.split(","):
            machine = machines.find(name.strip())
            word = self.settings.word
            word = machines.WORDS.get(name.strip(), "") if word is None else word
            began = time.perf_counter()
            network = TuringNetwork(machine)
            if self.settings.weights:
                report.say("\n".join(network.equations()))
            history = list(network.run(word, self.settings.limit))
            inside = [network.decode(x) for x in history]
            same = inside == list(machine.run(word, self.settings.limit))
            last = inside[-1]
            rows.append(
                {
                    "machine": Path(name.strip()).stem, "word": word, "units": len(network.rows),
                    "steps": len(history) - 1,
                    "halted in": last.state if last.state in machine.halting else "–",
                    "tape": last.tape.strip(machine.symbols[0]), "as the machine": same,
                    "seconds": round(time.perf_counter() - began, 2),
                }
            )  # fmt: skip
            histories[name.strip()] = (network, history, inside)
        self._histories = histories
        return Outcome(rows, {})

    def draw(self, outcome: Outcome, path: Path) -> None:
        """The tape and the units of the machine that ran longest, step by step."""
        name = max(self._histories, key=lambda name: len(self._histories[name][1]))
        network, history, inside = self._histories[name]
        units = [[float(x.get(unit, 0)) for unit in network.rows] for x in history]
        machine = network.machine
        moves = [machine.rules[now.state, now.head].move for now in inside[:-1]]
        heads = list(accumulate((1 if move == "R" else -1 for move in moves), initial=0))
        pictures.draw_machine(inside, heads, machine.symbols, units, Path(name).stem, path)
