// Prints the report of the Khronos validator on a GLB file: node khronos_validator.cjs MODULE FILE
const fs = require("fs");
const validator = require(process.argv[2]);
validator
  .validateBytes(new Uint8Array(fs.readFileSync(process.argv[3])))
  .then((report) => console.log(JSON.stringify(report)));
