"""Driver of SCLD. Settings: ``preset``, a preset of `scld.Config`."""

from __future__ import annotations

from job import LABEL, Job

import scld


def main() -> None:
    job = Job.of_arguments()
    config = scld.Config.preset(job.settings["preset"])
    synth = scld.Synthesizer([LABEL], config=config, seed=job.seed).fit(job.train, progress=False)
    cells = synth.sample(obs=job.wanted[[LABEL]], seed=job.seed, progress=False)
    model = job.folder / "model.scld"
    synth.save(model)
    job.write_cells(cells.X)
    job.write_info([model], ["scld", "torch"])


if __name__ == "__main__":
    main()
