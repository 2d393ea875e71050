/* What viewers of slices have in common, on the participant's page and on that of all. */

const VIEWS = [["Three planes", 3], ["Axial", 0], ["Coronal", 1], ["Sagittal", 2]];
const LOOK = {
  backColor: [0, 0, 0, 1], crosshairColor: [1, 0.85, 0.2, 0.9], crosshairWidth: 0.4, loadingText: "",
  dragAndDropEnabled: false, isRadiologicalConvention: false, show3Dcrosshair: false, isColorbar: false,
  fontColor: [0.8, 0.85, 0.9, 1], logLevel: "error",
};

/* The viewer's code, once. */
async function loadNiivue() {
  if (!document.createElement("canvas").getContext("webgl2")) throw new Error("this browser has no WebGL 2");
  await run(await unpack("niivue"));
}

function run(script) {
  return new Promise((resolve, reject) => {
    const node = document.createElement("script");
    node.src = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    node.onload = resolve;
    node.onerror = () => reject(new Error("the viewer's code could not be read"));
    document.head.append(node);
  });
}

function rgb(color) {
  return [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
}

/* Colours by label number; 0 is see-through. NiiVue rounds the lowest values up to 2/256 of the table, where it takes
 * colours for opaque: so the table begins below 0. */
function palette(colors, names) {
  const channel = (at) => [0, 0, ...colors.map((color) => color[at])];
  return {
    R: channel(0), G: channel(1), B: channel(2), A: [0, 0, ...colors.map(() => 255)],
    I: [-4, 0, ...colors.map((_, number) => number + 1)], labels: ["", "", ...names],
  };
}

/* Grey values below, numbers of colours above them; ``tell`` says in words what lies at a voxel. */
class SliceViewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.nv = new niivue.Niivue({ ...LOOK, multiplanarShowRender: niivue.SHOW_RENDER.NEVER });
  }

  async start() {
    await this.nv.attachToCanvas(this.canvas);
    this.nv.onLocationChange = (place) => this.tell(place.vox);
    this.canvas.addEventListener("mousemove", (event) => this.hover(event));
    this.canvas.addEventListener("mouseleave", () => this.tell(this.crosshair()));
  }

  /* The scan is shown smooth, the labels as the voxels they are. */
  refresh() {
    this.nv.updateGLVolume();
    this.nv.opts.isNearestInterpolation = true;
    this.nv.updateInterpolation(1);
    this.nv.opts.isNearestInterpolation = false;
    this.nv.drawScene();
  }

  crosshair() {
    return this.nv.frac2vox(this.nv.scene.crosshairPos);
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    const frac = this.nv.canvasPos2frac([(event.clientX - box.left) * scale, (event.clientY - box.top) * scale]);
    if (frac[0] >= 0) this.tell(this.nv.frac2vox(frac));
  }
}
