/* Maps of lesion frequency over the template: one layer, whose colours are filled in anew for each map. */

const STOPS = ["#5b02a3", "#b12a90", "#e16462", "#fca636", "#f0f921"];
const COLORS = 128;

/* The colour at a place from 0 to 1 between the stops. */
function between(at) {
  const place = at * (STOPS.length - 1);
  const first = Math.min(Math.floor(place), STOPS.length - 2);
  const [low, high] = [rgb(STOPS[first]), rgb(STOPS[first + 1])];
  return low.map((value, channel) => Math.round(value + (high[channel] - value) * (place - first)));
}

class FrequencyViewer extends SliceViewer {
  constructor(canvas, data) {
    super(canvas);
    this.data = data;
  }

  async open() {
    const [grey, labels] = await Promise.all([unpack("frequency-grey"), unpack("frequency-labels")]);
    const volumes = [await niivue.NVImage.new(grey, "template.nii"), await niivue.NVImage.new(labels, "lesions.nii")];
    this.labels = volumes[1].img.slice();
    this.size = volumes[1].hdr.dims.slice(1, 4);
    volumes[0].colormap = "gray";
    volumes[0].cal_min = 0;
    volumes[0].cal_max = 255;
    volumes.forEach((volume) => this.nv.addVolume(volume));
    const colors = [...Array(COLORS).keys()].map((number) => between(number / (COLORS - 1)));
    volumes[1].setColormapLabel(palette(colors, colors.map(() => "")));
  }

  /* All maps have one scale, so that groups can be compared. */
  async show(number) {
    this.number = number;
    this.map = this.data.maps[number];
    this.counts = (await niivue.NVImage.new(await unpack(`frequency-counts-${number}`), "counts.nii")).img;
    const most = this.data.highest * this.map.participants || 1;
    const color = (count) => (count ? 1 + Math.round((COLORS - 1) * Math.min(1, count / most)) : 0);
    this.counts.forEach((count, voxel) => { this.nv.volumes[1].img[voxel] = color(count); });
    this.refresh();
    this.tell(this.crosshair());
  }

  style(opacity) {
    this.nv.volumes[1].opacity = opacity;
    this.refresh();
  }

  /* How many have a lesion at a voxel, and the region that it lies in. */
  tell(vox) {
    if (!this.counts || !vox) return;
    const [i, j, k] = vox.map(Math.round);
    const voxel = i + this.size[0] * (j + this.size[1] * k);
    const [count, all] = [this.counts[voxel] || 0, this.map.participants];
    const share = document.createElement("strong");
    share.textContent = `${(100 * count / all).toFixed(1)} %`;
    const place = document.createElement("span");
    place.className = "soft";
    place.textContent = `${count} of ${all} · ${this.data.names[this.labels[voxel]] || "outside the brain"}`;
    element("readout").replaceChildren(share, place);
  }

  /* Move the crosshair to the first voxel where lesions are most frequent. */
  findHighest() {
    const voxel = this.counts.reduce((best, count, at) => (count > this.counts[best] ? at : best), 0);
    const [ni, nj] = this.size;
    const place = [voxel % ni, Math.floor(voxel / ni) % nj, Math.floor(voxel / (ni * nj))];
    this.nv.scene.crosshairPos = this.nv.vox2frac(place);
    this.nv.drawScene();
    this.tell(place);
  }
}

function frequencyControls(viewer) {
  const map = async (number) => {
    await viewer.show(number);
    choice("choose-map", viewer.data.maps.map(({ title }, at) => [title, at]), number, map);
  };
  const view = (type) => {
    viewer.nv.setSliceType(type);
    choice("choose-view", VIEWS, type, view);
  };
  element("opacity").addEventListener("input", (event) => viewer.style(Number(event.target.value)));
  element("scale-bar").querySelector("i").style.background = `linear-gradient(90deg, ${STOPS.join(", ")})`;
  element("highest").textContent = `${(100 * viewer.data.highest).toFixed(1)} %`;
  return { map, view };
}

async function startFrequency() {
  try {
    await loadNiivue();
    const viewer = new FrequencyViewer(element("canvas"), JSON.parse(element("frequency-data").textContent));
    await viewer.start();
    await viewer.open();
    const { map, view } = frequencyControls(viewer);
    await map(0);
    viewer.style(Number(element("opacity").value));
    view(3);
    viewer.findHighest();
    element("message").textContent = "";
    element("canvas").dataset.state = "ready";
    window.viewer = viewer;
  } catch (error) {
    element("message").textContent = `No interactive viewer: ${error.message}. The files below open in any viewer.`;
    element("canvas").dataset.state = "failed";
  }
}

startFrequency();
